"""A changed recipe never destroys a training: it is refused, or the old training is set aside."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.files import read_json, read_object, write_json
from pipo_core.pipeline.jobs import JOBS

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\\nb"}]}\n'
LAST = {"fail": "", "steps": 0}


def fake_train(recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
    """Leave a checkpoint and a model that say what they were made with; stop in between if `LAST` says so."""
    if LAST["fail"] == "at once":
        raise MemoryError
    write_json(out / "checkpoints" / "checkpoint-1" / "complete.json", {"rate": recipe.optimizer.learning_rate})
    if LAST["fail"] == "in the middle":
        raise KeyboardInterrupt
    write_json(out / "model" / "config.json", {"rate": recipe.optimizer.learning_rate})
    return {"steps": 1}


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Return `pipo train` of a small recipe with a stand-in for the job; it returns exit code and standard error."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(JOBS, dict)
    monkeypatch.setitem(JOBS, "train", fake_train)
    monkeypatch.setitem(LAST, "fail", "")
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text(ROW)
    settings = {"kind": "train", "model": "./base", "data": {"train": "rows.jsonl"}, "max_steps": 1}
    Path("small.yaml").write_text(json.dumps(settings))
    pipeline = {"kind": "pipeline", "run": "line", "stages": [{"name": "first", "recipe": "small.yaml"}]}
    Path("line.yaml").write_text(json.dumps(pipeline))

    def run(*words: str, fail: str = "", verb: str = "train", recipe: str = "small.yaml") -> tuple[int, str]:
        LAST["fail"] = fail
        result = CliRunner().invoke(app, [verb, recipe, *words])
        return result.exit_code, result.stderr

    return run


def rates(folder: Path) -> dict[str, float]:
    """Return the rate that each model, or else checkpoint, under `folder` was made with."""
    models = {path.parents[2].name: path for path in folder.glob("*/checkpoints/checkpoint-1/complete.json")}
    models |= {path.parent.parent.name: path for path in folder.glob("*/model/config.json")}
    return {name: read_object(path)["rate"] for name, path in sorted(models.items())}


def state(folder: Path) -> Mapping[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


RUN = Path("outputs/small")
FASTER = "optimizer.learning_rate=0.5"
FASTEST = "optimizer.learning_rate=0.75"


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_changed_recipe_is_refused_with_what_changed_and_two_ways_on(
    train: Callable[..., tuple[int, str]], unfinished: bool
) -> None:
    train(fail="in the middle" if unfinished else "")
    before = state(RUN)
    code, err = train(FASTER, "batch.per_device=2")
    assert code == 2
    assert err.splitlines() == [
        "pipo: outputs/small/train holds another training:",
        "  batch.per_device was 1 and is 2",
        "  optimizer.learning_rate was 0.0001 and is 0.5",
        "  try: add --restart to start again (the old training becomes train.previous), "
        "or run=NAME to train in another folder",
    ]
    assert state(RUN) == before, "nothing is touched"
    plan = CliRunner().invoke(app, ["train", "small.yaml", FASTER, "--dry-run", "--json"])
    assert json.loads(plan.stdout)["action"] == "cannot start"
    assert "--restart" in json.loads(plan.stdout)["next"]
    found = CliRunner().invoke(app, ["train", "small.yaml", FASTER, "--json"])
    assert json.loads(found.stdout)["problems"] == ["optimizer.learning_rate was 0.0001 and is 0.5"]
    assert train()[0] == 0, "the recipe that it was made from goes on"
    assert train(FASTER, "run=other")[0] == 0
    assert rates(Path("outputs/other")) == {"train": 0.5}
    assert rates(RUN) == {"train": 0.0001}


def test_changed_data_is_refused(train: Callable[..., tuple[int, str]]) -> None:
    train()
    Path("rows.jsonl").write_text(ROW * 2)
    code, err = train()
    assert (code, "  the content of input data.train changed" in err.splitlines()) == (2, True)
    Path("others.jsonl").write_text(ROW * 3)
    code, err = train("data.train=others.jsonl")
    line = "  input data.train was 'rows.jsonl' and is 'others.jsonl'"
    assert (code, line in err.splitlines()) == (2, True)


def test_what_does_not_change_the_weights_is_not_asked_about(train: Callable[..., tuple[int, str]]) -> None:
    train(fail="in the middle")
    assert train("log_every_steps=3", "save.every_steps=7", "launch.threads=2")[0] == 0


def test_restart_keeps_every_earlier_training(train: Callable[..., tuple[int, str]]) -> None:
    train()
    code, err = train(FASTER, "--restart")
    assert code == 0
    assert "train: runs again, because optimizer.learning_rate was 0.0001 and is 0.5" in err
    assert "the old result is now train.previous" in err
    assert rates(RUN) == {"train": 0.5, "train.previous": 0.0001}
    assert train(FASTEST, "--restart")[0] == 0
    assert train("optimizer.learning_rate=0.25", "--restart")[0] == 0
    assert rates(RUN) == {
        "train": 0.25,
        "train.previous": 0.75,
        "train.previous.1": 0.0001,
        "train.previous.2": 0.5,
    }


def test_restart_given_again_goes_on(train: Callable[..., tuple[int, str]]) -> None:
    train()
    code, err = train(FASTER, "--restart", fail="in the middle")
    assert (code, "the same command goes on" in err) == (130, True)
    code, err = train(FASTER, "--restart")
    assert (code, "train: goes on" in err) == (0, True)
    assert rates(RUN) == {"train": 0.5, "train.previous": 0.0001}
    assert "finished already" in train(FASTER, "--restart")[1]


def test_a_training_that_came_to_nothing_may_be_changed(train: Callable[..., tuple[int, str]]) -> None:
    train()
    train(FASTER, "--restart", fail="at once")
    assert train(FASTEST)[0] == 0
    assert rates(RUN) == {"train": 0.75, "train.previous.1": 0.0001}, "the good one gave its place, not its life"


def test_a_pipeline_runs_changed_trainings_again_and_keeps_every_earlier_one(
    train: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipo_core.pipeline.report.write_report", lambda folder, stages: folder / "report.md")
    for rate in (0.125, 0.25, 0.5):
        code, err = train(f"first.optimizer.learning_rate={rate}", verb="run", recipe="line.yaml")
        assert code == 0, err
    assert "the old result is now first.previous" in err
    assert rates(Path("outputs/line")) == {"first": 0.5, "first.previous": 0.25, "first.previous.1": 0.125}


def test_an_earlier_training_without_a_readable_record_is_refused_too(train: Callable[..., tuple[int, str]]) -> None:
    train()
    for name in ("stage.json", ".stage.json"):
        (RUN / "train" / name).write_text("{")
    code, err = train()
    assert (code, "holds no readable stage.json" in err) == (2, True)
    assert train("--restart")[0] == 0
    assert read_json(RUN / "train.previous" / "model" / "config.json") == {"rate": 0.0001}


def test_set_aside_trainings_are_not_the_newest_checkpoint(train: Callable[..., tuple[int, str]]) -> None:
    from pipo_cli.checkpoints import newest_checkpoint

    train()
    train(FASTER, "--restart")
    train(FASTEST, "--restart")
    for folder in (RUN / "train.previous", RUN / "train.previous.1"):
        os.utime(folder / "stage.json")
    assert newest_checkpoint(Path("outputs")) == RUN / "train" / "model"
