"""Distillation with SGLang's server: it answers with exactly the student's weights, and training learns the same."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipo_core.engine.student_servers import StudentServers, open_student_servers
from pipo_core.errors import MachineError
from pipo_core.recipes.common import SGLangSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.worker.opd_students import ServedStudent
from tests.sglang_cpu.conftest import CPU_FLAGS, CPU_VARIABLES, Prompts
from tests.sglang_cpu.handing_over import answered, expected_of, move_weights
from tests.train.trainings import LORA, distill_recipe, train_here, weights

TAU = 0.4
POOLS = ("--max-mamba-cache-size", "64", "--max-total-tokens", "4096", "--mamba-radix-cache-strategy", "extra_buffer")
FLAGS = [*(flag for flag in CPU_FLAGS if flag not in ("--dtype", "float32")), *POOLS]


@pytest.fixture(scope="module")
def servers(ckpt: Path) -> Iterator[StudentServers]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CPU_VARIABLES.items():
            patch.setenv(name, value)
        settings = SGLangSettings(kind="sglang", flags=FLAGS)
        opened = open_student_servers(ckpt, TAU, settings, dtype="float32")
        yield opened
        opened.engine.close()


@pytest.fixture(scope="module")
def moved(ckpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint with other weights, as an optimizer's steps would leave."""
    return move_weights(ckpt, tmp_path_factory.mktemp("moved") / "pairs")


def test_a_server_has_the_weights_that_were_handed_over_last(
    servers: StudentServers, ckpt: Path, moved: Path, prompts: Prompts
) -> None:
    """Each answer, slot and draft is the torch engine's, though the server has cached the prompts of older weights."""
    written = []
    for number, folder in enumerate((ckpt, moved, ckpt)):
        servers.load(folder, f"test-{number}")
        servers.expect(f"test-{number}")
        expected = expected_of(folder, TAU, prompts)
        for _ in range(2):
            found = answered(servers.engine, prompts)
            assert [one.record for one in found] == [one.record for one in expected]
            assert [one.token_ids for one in found] == [one.token_ids for one in expected]
            assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
        written.append([one.token_ids for one in found])
        slots = [slot for one in found for slot in one.record or ()]
        assert any(slot.kept for slot in slots)
        assert any(not slot.kept and slot.draft is not None for slot in slots)
        assert any(slot.draft is None for slot in slots), "no answer ended with a first token"
    assert written[0] == written[2] != written[1]


def test_answers_of_other_weights_are_refused(servers: StudentServers, ckpt: Path, prompts: Prompts) -> None:
    servers.load(ckpt, "given")
    servers.expect("wanted")
    [answer] = answered(servers.engine, prompts[:1])
    assert answer.finish_reason == "error"
    assert "other weights ('given')" in (answer.error or "")


def test_a_folder_without_weights_is_refused_and_the_old_ones_stay(
    servers: StudentServers, ckpt: Path, prompts: Prompts, tmp_path: Path
) -> None:
    servers.load(ckpt, "whole")
    servers.expect("whole")
    before = answered(servers.engine, prompts[:3])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MachineError, match="did not load the student's weights"):
        servers.load(tmp_path, "nothing")
    assert [one.record for one in answered(servers.engine, prompts[:3])] == [one.record for one in before]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    asked = [f"What is {a}+{b}?" for a in range(3, 9) for b in range(11, 17)]
    file.write_text("".join(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in asked))
    return file


def settings_of(ckpt: Path, questions: Path, engine: dict[str, Any], **changes: Any) -> DistillRecipe:
    """Return a distillation whose sampling leaves no choice, so that engines can be compared."""
    rollout = {"slots": 24, "tau": TAU, "sampling": {"top_k": 1, "presence_penalty": 0.5}, "engine": engine}
    data = {"train": str(questions), "max_prompt": 128}
    return distill_recipe(
        ckpt, bundled_model("tiny-teacher"), questions, **{"rollout": rollout, "data": data, "max_steps": 3, **changes}
    )


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CPU_VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
def test_a_training_learns_what_it_learns_with_the_torch_engine(
    ckpt: Path, questions: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    sure = {**tuning, "dropout": 0.0}
    running = servers_of_this_process()
    made, logs = [], []
    for name, engine in (("torch", {"kind": "torch"}), ("sglang", {"kind": "sglang", "flags": FLAGS})):
        events = train_here(settings_of(ckpt, questions, engine, tuning=sure), tmp_path / name)
        logs.append([event for event in events if event["event"] == "log"])
        made.append(weights(tmp_path / name / ("model" if tuning["method"] == "full" else "adapter")))
    for ours, theirs in zip(*logs, strict=True):
        for figure in ("rollout_tokens", "tokens_per_slot", "drafts_kept", "rollouts_finished"):
            assert ours[figure] == pytest.approx(theirs[figure], abs=1e-9), figure
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        shares = [theirs[f"{part}_share"] for part in ("handover", "rollout", "teacher", "student")]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert "handover_share" not in ours
    assert max((made[0][name] - made[1][name]).abs().max().item() for name in made[0]) < 1e-5
    before = weights(ckpt)
    start = {name: before.get(name, torch.tensor(0.0)) for name in made[0] if name in before or "lora_B" in name}
    assert max((made[0][name] - weight).abs().max().item() for name, weight in start.items()) > 1e-3
    assert not (tmp_path / "sglang" / ".handover").exists()
    assert servers_of_this_process() <= running


def servers_of_this_process() -> set[psutil.Process]:
    every = psutil.Process().children(recursive=True)
    return {one for one in every if "sglang.launch_server" in one.cmdline()}


@pytest.mark.slow
@pytest.mark.usefixtures("variables")
def test_a_server_that_dies_ends_the_training_which_then_goes_on(
    ckpt: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(ckpt, questions, {"kind": "sglang", "flags": FLAGS}, max_steps=2)
    prepare, running = ServedStudent.prepare, servers_of_this_process()

    def dying(self: ServedStudent, step: int) -> None:
        prepare(self, step)
        if step == 1:
            for server in servers_of_this_process() - running:
                os.kill(server.pid, signal.SIGKILL)

    monkeypatch.setattr(ServedStudent, "prepare", dying)
    with pytest.raises(MachineError, match="SGLang's server has ended"):
        train_here(settings, tmp_path / "out")
    assert not (tmp_path / "out" / ".handover").exists()
    monkeypatch.undo()
    for name, value in CPU_VARIABLES.items():
        monkeypatch.setenv(name, value)
    events = train_here(settings, tmp_path / "out")
    assert next(event for event in events if event["event"] == "begin")["step"] == 1
    assert events[-1]["event"] == "done"
