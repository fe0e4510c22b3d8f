"""A finished stage whose files were changed, cut or removed: each is named, and made good or refused."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipo_cli.plan import job_plan
from pipo_core.errors import MissingInputError
from pipo_core.files import append_jsonl, read_json, write_json
from pipo_core.pipeline.records import stage_record
from pipo_core.pipeline.stage import StageResult, run_stage
from pipo_core.pipeline.status import ChangedError, check_stage
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.reporting import SilentReporter
from pipo_core.train.checkpoints import mark_complete

MADE = {"model/config.json": b"{}\n", "model/weights.bin": bytes(1000), "results.json": b'{"a": 1}\n'}
LOGS = ("log.txt", "events.jsonl", "recipe.yaml")


@dataclass
class MakeJob:
    """Writes `MADE` and counts its calls."""

    calls: int = 0
    checkpoint: bool = False
    made_by: list[str] = field(default_factory=list)

    def __call__(self, recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        self.calls += 1
        self.made_by.append(made_by)
        for name, content in MADE.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(content)
        append_jsonl(out / "metrics.jsonl", [{"step": 1}])
        if self.checkpoint and not (out / "checkpoints").exists():
            folder = out / "checkpoints" / "checkpoint-5"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(b"weights")
            mark_complete(folder, made_by)
        return {"rows": 1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    write_json(tmp_path / "source" / "adapter_config.json", {})
    return tmp_path / "source"


def merge(source: Path, job: Any, listener: Any = None) -> StageResult:
    recipe = MergeRecipe(run="r", source=str(source))
    return run_stage(recipe, source.parent / "out", reporter=listener or SilentReporter(), jobs={"merge": job})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


ACTS: dict[str, Callable[[Path], None]] = {"flip": flip, "cut": cut, "delete": Path.unlink}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", MADE)
def test_what_is_damaged_is_named_set_aside_and_made_again(source: Path, listener: Any, act: str, name: str) -> None:
    job = MakeJob()
    folder = merge(source, job).folder
    ACTS[act](folder / name)
    assert not merge(source, job, listener).skipped
    assert job.calls == 2
    word = "is gone" if act == "delete" else "was changed"
    assert f"{name} {word} since it was made" in listener.said[0]
    for made, content in MADE.items():
        assert (folder / made).read_bytes() == content
    aside = folder / ("model.damaged" if name.startswith("model/") else f"{name}.damaged")
    assert aside.exists() is (act != "delete" or name.startswith("model/"))
    assert job.made_by[0] == job.made_by[1]
    assert merge(source, job).skipped


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", LOGS)
def test_damage_to_what_nothing_is_made_from_is_named_once(source: Path, listener: Any, act: str, name: str) -> None:
    job = MakeJob()
    folder = merge(source, job).folder
    recipe = (folder / "recipe.yaml").read_text()
    ACTS[act](folder / name)
    assert merge(source, job, listener).skipped
    assert any(name in line and "warning" in line for line in listener.said)
    assert (folder / "recipe.yaml").read_text() == recipe
    listener.said.clear()
    assert merge(source, job, listener).skipped
    assert not any("warning" in line for line in listener.said)


@pytest.mark.parametrize("act", ["flip", "cut"])
def test_a_damaged_record_is_replaced_by_its_copy(source: Path, listener: Any, act: str) -> None:
    job = MakeJob()
    folder = merge(source, job).folder
    before = stage_record(folder)
    ACTS[act](folder / "stage.json")
    assert merge(source, job, listener).skipped
    assert "stage.json is damaged" in listener.said[0]
    assert read_json(folder / "stage.json")["summary"] == before["summary"]
    ACTS[act](folder / "stage.json")
    ACTS[act](folder / ".stage.json")
    assert not merge(source, job, listener).skipped
    assert (folder.with_name("merge.previous") / "results.json").is_file()


def test_a_dry_run_names_what_a_run_would_name(source: Path) -> None:
    folder = merge(source, MakeJob()).folder
    (folder / "recipe.yaml").unlink()
    for _ in range(2):
        plan = job_plan(MergeRecipe(run="r", source=str(source)), source.parent / "out")
        assert (plan["action"], plan["reasons"]) == ("skip", ["recipe.yaml is gone since it was made"])


def test_touching_and_moving_is_no_damage(source: Path, listener: Any) -> None:
    job = MakeJob()
    folder = merge(source, job).folder
    for file in folder.rglob("*"):
        os.utime(file, ns=(1, 1))
    (folder.parent.parent / "r").rename(folder.parent.parent / "s")
    recipe = MergeRecipe(run="s", source=str(source))
    result = run_stage(recipe, source.parent / "out", reporter=listener, jobs={"merge": job})
    assert result.skipped
    assert listener.said == ["merge: finished already, nothing has changed"]


def test_a_result_is_not_made_from_a_damaged_model(source: Path) -> None:
    """Before, the good evaluation would be set aside and made again from the damaged model."""
    job = MakeJob()
    folder = merge(source, job).folder
    arms = [{"name": "a", "method": "regular", "ckpt": str(folder / "model")}]
    recipe = EvalRecipe.model_validate({"run": "e", "arms": arms, "budget": {"tokens": 4}})
    done = run_stage(recipe, source.parent / "out", reporter=SilentReporter(), jobs={"eval": job})
    for act in (flip, Path.unlink):
        act(folder / "model" / "weights.bin")
        with pytest.raises(
            MissingInputError, match=r"arms\.0\.ckpt: .*model/weights\.bin .* since the stage in .*merge"
        ):
            check_stage(recipe, source.parent / "out")
        assert (done.folder / "results.json").is_file()
        merge(source, job)
        assert check_stage(recipe, source.parent / "out").action == "skip"


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_damaged_training_goes_on_from_its_checkpoint_or_is_refused(
    source: Path, listener: Any, *, checkpoint: bool
) -> None:
    write_json(source / "config.json", {})
    (source / "rows.jsonl").write_text("{}\n")
    values = {"run": "t", "model": str(source), "data": {"train": str(source / "rows.jsonl")}, "max_steps": 5}
    recipe = TrainRecipe.model_validate(values)
    job = MakeJob(checkpoint=checkpoint)

    def train() -> StageResult:
        return run_stage(recipe, source.parent / "out", reporter=listener, jobs={"train": job})

    folder = train().folder
    write_json(folder / "result.json", {})
    flip(folder / "model" / "weights.bin")
    if checkpoint:
        assert not train().skipped
        assert (folder / "model" / "weights.bin").read_bytes() == MADE["model/weights.bin"]
        assert not (folder / "result.json").exists(), "with it the training would count as finished"
        flip(folder / "checkpoints" / "checkpoint-5" / "model.safetensors")
        listener.said.clear()
        assert train().skipped
        assert "checkpoint-5/model.safetensors was changed" in listener.said[0]
        shutil.rmtree(folder / "checkpoints" / "checkpoint-5")
        listener.said.clear()
        assert train().skipped
        assert [line for line in listener.said if "warning" in line] == [
            f"warning: {folder / 'checkpoints' / 'checkpoint-5'} is gone since it was made"
        ]
    else:
        with pytest.raises(ChangedError, match="a damaged training, and no checkpoint") as caught:
            train()
        assert "model/weights.bin was changed" in caught.value.message
        assert job.calls == 1
