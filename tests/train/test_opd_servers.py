"""Distillations whose questions servers answer: they train as with the torch engine, and stop where a server does."""

from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MachineError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.train.opd import run_distill
from tests.engine.scripted_server import scripted
from tests.train.sglang_stand_in import StandIn
from tests.train.trainings import LORA, differing, distill_recipe, train_here, weights

SURE = {"top_k": 1, "presence_penalty": 0.5}
"""Sampling that leaves no choice, so that noise does not matter."""


def rollout(*urls: str) -> dict[str, Any]:
    engine = {"kind": "remote", "urls": list(urls), "patience_s": 0.2} if urls else {"kind": "torch"}
    return {"slots": 6, "batch": 8, "tau": 0.5, "sampling": SURE, "engine": engine}


@pytest.mark.parametrize("tuning", [{"method": "full"}, {**LORA, "dropout": 0.0}], ids=["full", "lora"])
def test_servers_get_the_weights_before_each_step(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {"tuning": tuning, "max_steps": 3, "optimizer": {"learning_rate": 1e-2}}
    here = train_here(distill_recipe(student, teacher, rows, rollout=rollout(), **changes), tmp_path / "here")
    with scripted(StandIn(student)) as one, scripted(StandIn(student)) as other:
        settings = distill_recipe(student, teacher, rows, rollout=rollout(one.url, other.url), **changes)
        there = train_here(settings, tmp_path / "there")
        assert [isinstance(server, StandIn) and server.loads for server in (one, other)] == [3, 3]
        folders = {body["model_path"] for path, body in one.asked if path == "/update_weights_from_disk"}
    artifact = "model" if tuning["method"] == "full" else "adapter"
    made = [weights(tmp_path / name / artifact) for name in ("here", "there")]
    assert all((made[0][name] - made[1][name]).abs().max() < 1e-5 for name in made[0])
    logs = [[event for event in events if event["event"] == "log"] for events in (here, there)]
    assert [log["rollout_tokens"] for log in logs[0]] == [log["rollout_tokens"] for log in logs[1]]
    parts = ("handover", "rollout", "teacher", "student")
    assert sum(logs[1][0][f"{part}_share"] for part in parts) == pytest.approx(1, abs=1e-3)
    assert "handover_share" not in logs[0][0]
    assert folders == {str(tmp_path / "there" / ".handover")}
    assert not (tmp_path / "there" / ".handover").exists()


def test_the_first_of_several_processes_hands_over_and_each_asks(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"max_steps": 2, "batch": {}, "launch": {"threads": 1, "processes": 2}}
    made = []
    with scripted(StandIn(student)) as server:
        for name, urls in (("here", ()), ("there", (server.url,))):
            (tmp_path / name).mkdir()
            settings = distill_recipe(student, teacher, rows, rollout=rollout(*urls), **changes)
            run_distill(settings, tmp_path / name, made_by="test")
            made.append(weights(tmp_path / name / "model"))
        assert [path for path, _ in server.asked] == 2 * ["/update_weights_from_disk", "/generate", "/generate"]
    assert all((made[0][name] - made[1][name]).abs().max() < 1e-5 for name in made[0])
    assert differing(made[1], weights(student)), "it learned nothing"


def test_a_server_that_is_gone_ends_the_training_which_then_goes_on(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    server, a_step = StandIn(student), 1 + 4  # the weights, and four questions
    server.dies_after = a_step + 1
    with scripted(server):
        settings = distill_recipe(student, teacher, rows, rollout=rollout(server.url), max_steps=4)
        with pytest.raises(PipoError, match=r"question of line \d+: no server has answered"):
            run_distill(settings, tmp_path, made_by="test")
        assert not (tmp_path / ".handover").exists()
        server.dies_after += a_step
        with pytest.raises(MachineError, match="did not load the student's weights"):
            run_distill(settings, tmp_path, made_by="test")
        server.dies_after = None
        summary = run_distill(settings, tmp_path, made_by="test")
    assert summary["resumed_from_step"] == 2
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
