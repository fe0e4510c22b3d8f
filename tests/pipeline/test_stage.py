"""What `run_stage` does again, goes on with, or leaves alone."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipo_core.errors import Interrupted, MachineError, MissingInputError, PipoError, UsageError
from pipo_core.files import FolderLock, read_json, read_jsonl, write_json
from pipo_core.pipeline.records import write_stage_record
from pipo_core.pipeline.stage import StageResult, run_stage
from pipo_core.recipes.build import BuildRecipe
from pipo_core.reporting import SilentReporter

WriteRows = Callable[..., Path]


def stage(rollouts: Path, root: Path, job: Any, listener: Any = None, **settings: Any) -> StageResult:
    recipe = BuildRecipe(run="r", rollouts=[str(rollouts)], **settings)
    return run_stage(recipe, root, reporter=listener or SilentReporter(), jobs={"build": job})


def test_a_stage_says_on_disk_what_it_was_made_from(tmp_path: Path, write_rows: WriteRows, copy_job: Any) -> None:
    rows = write_rows()
    result = stage(rows, tmp_path / "out", copy_job(), seed=3)
    assert result.folder == tmp_path / "out" / "r" / "build"
    assert result.summary["train_rows"] == 4
    assert not result.skipped
    record = read_json(result.folder / "stage.json")
    assert record["state"] == "done"
    assert record["summary"] == result.summary
    assert record["settings"]["seed"] == 3
    assert record["inputs"]["rollouts.0"]["path"] == str(rows)
    assert record["versions"]["torch"]
    assert (result.kind, result.seconds) == ("build", record["seconds"])
    assert record["attempts"] == 1
    assert record["outputs"] == ["train.jsonl"]
    recipe = yaml.safe_load((result.folder / "recipe.yaml").read_text())
    assert BuildRecipe.model_validate(recipe).seed == 3
    events = read_jsonl(result.folder / "events.jsonl")
    assert [event["event"] for event in events] == ["running", "progress", "done"]
    assert events[1]["done"] == 4
    assert "done" in (result.folder / "log.txt").read_text()


def test_finished_and_unchanged_is_left_alone(
    tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any
) -> None:
    job, rows = copy_job(), write_rows()
    first = stage(rows, tmp_path / "out", job)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = stage(rows, tmp_path / "out", job, listener)
    assert second == replace(first, skipped=True)
    assert job.calls == [("build", 0)]
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert "finished already" in listener.said[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped"), PipoError("no room")])
def test_a_stage_that_stopped_goes_on(
    tmp_path: Path, write_rows: WriteRows, listener: Any, error: BaseException, copy_job: Any
) -> None:
    job = copy_job(stop_at=2, error=error)
    rows, folder = write_rows(), tmp_path / "out" / "r" / "build"
    with pytest.raises(type(error)):
        stage(rows, tmp_path / "out", job)
    record = read_json(folder / "stage.json")
    assert record["state"] == ("failed" if type(error) is PipoError else "interrupted")
    assert record["message"]
    assert "Traceback" in (folder / "log.txt").read_text()
    result = stage(rows, tmp_path / "out", job, listener)
    assert job.calls == [("build", 0), ("build", 2)]
    assert [row["n"] for row in read_jsonl(folder / "train.jsonl")] == [0, 1, 2, 3]
    assert not result.skipped
    assert read_json(folder / "stage.json")["attempts"] == 2
    assert "goes on" in listener.said[0]
    assert stage(rows, tmp_path / "out", job).skipped


def test_a_summary_that_is_not_json_fails_the_stage(tmp_path: Path, write_rows: WriteRows) -> None:
    with pytest.raises(TypeError):
        stage(write_rows(), tmp_path / "out", lambda *_: {"path": tmp_path})
    assert read_json(tmp_path / "out" / "r" / "build" / "stage.json")["state"] == "failed"


def test_a_changed_recipe_runs_again_and_keeps_one_previous(
    tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any
) -> None:
    job, rows = copy_job(), write_rows()
    for seed in (0, 1, 2):
        folder = stage(rows, tmp_path / "out", job, listener, seed=seed).folder
    assert job.calls == [("build", 0)] * 3
    assert "seed was 1 and is 2" in listener.said[-1]
    previous = folder.with_name("build.previous")
    assert {row["seed"] for row in read_jsonl(previous / "train.jsonl")} == {1}
    assert {row["seed"] for row in read_jsonl(folder / "train.jsonl")} == {2}
    assert sorted(path.name for path in folder.parent.iterdir()) == [".locks", "build", "build.previous"]


def test_a_changed_recipe_does_not_go_on_from_an_unfinished_stage(
    tmp_path: Path, write_rows: WriteRows, copy_job: Any
) -> None:
    job, rows = copy_job(stop_at=2, error=KeyboardInterrupt()), write_rows()
    with pytest.raises(KeyboardInterrupt):
        stage(rows, tmp_path / "out", job)
    folder = stage(rows, tmp_path / "out", job, seed=1).folder
    assert {row["seed"] for row in read_jsonl(folder / "train.jsonl")} == {1}


def test_changed_input_content_runs_again_even_at_the_same_size(
    tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any
) -> None:
    job = copy_job()
    stage(write_rows(word="a"), tmp_path / "out", job)
    folder = stage(write_rows(word="b"), tmp_path / "out", job, listener).folder
    assert "the content of input rollouts.0 changed" in listener.said[0]
    assert {row["word"] for row in read_jsonl(folder / "train.jsonl")} == {"b"}


def test_same_content_elsewhere_and_touched_files_are_no_change(
    tmp_path: Path, write_rows: WriteRows, copy_job: Any
) -> None:
    job, rows = copy_job(), write_rows()
    stage(rows, tmp_path / "out", job)
    os.utime(rows, ns=(1, 1))
    assert stage(rows, tmp_path / "out", job).skipped
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rows.rename(folder / "rollouts.jsonl")
    assert stage(folder, tmp_path / "out", job).skipped


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch, copy_job: Any
) -> None:
    rows = write_rows()
    stage(rows, tmp_path / "out", copy_job())

    def unexpected(path: Path) -> str:
        raise AssertionError(f"read {path}")

    monkeypatch.setattr("pipo_core.pipeline.fingerprints.file_fingerprint", unexpected)
    assert stage(rows, tmp_path / "out", copy_job()).skipped


@pytest.mark.parametrize("recorded", ["now", "by an older version", "nowhere"])
def test_a_job_goes_on_with_the_fingerprint_that_it_began_with(
    tmp_path: Path, write_rows: WriteRows, recorded: str
) -> None:
    """Its checkpoints are stamped with it, so a version of pipo that counts otherwise must not change it half-way."""
    got: list[str] = []

    def job(recipe: object, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        got.append(made_by)
        if len(got) == 1:
            write_json(out / "job.json", {"made_by": "older"})
            raise KeyboardInterrupt
        return {}

    rows, record = write_rows(), tmp_path / "out" / "r" / "build" / "stage.json"
    with pytest.raises(KeyboardInterrupt):
        stage(rows, tmp_path / "out", job)
    content = read_json(record)
    assert content["made_by"] == got[0]
    if recorded != "now":
        del content["made_by"]
        write_stage_record(record.parent, content)
    if recorded == "nowhere":
        (record.parent / "job.json").unlink()
    stage(rows, tmp_path / "out", job)
    assert got[1] == ("older" if recorded == "by an older version" else got[0])
    assert read_json(record)["made_by"] == got[1]
    stage(rows, tmp_path / "out", job, seed=1)
    assert got[2] not in got[:2]


def test_a_key_that_a_newer_version_added_is_no_change(tmp_path: Path, write_rows: WriteRows, copy_job: Any) -> None:
    job, rows = copy_job(), write_rows()
    folder = stage(rows, tmp_path / "out", job).folder
    record = read_json(folder / "stage.json")
    del record["settings"]["minimum_solved"]
    write_stage_record(folder, record)
    assert stage(rows, tmp_path / "out", job).skipped
    assert not stage(rows, tmp_path / "out", job, minimum_solved=0.5).skipped


def test_a_key_that_no_longer_exists_is_the_only_change(
    tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any
) -> None:
    """Neither neutral settings nor inputs are named beside it."""
    job, rows = copy_job(), write_rows()
    folder = stage(rows, tmp_path / "out", job).folder
    record = read_json(folder / "stage.json")
    record["settings"]["gone"] = 5
    write_stage_record(folder, record)
    assert not stage(rows, tmp_path / "out", job, listener).skipped
    assert "gone was 5 and is no longer a key" in listener.said[0]
    assert " run was " not in listener.said[0]
    assert "rollouts" not in listener.said[0]


def test_a_lost_output_is_made_again(tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any) -> None:
    job, rows = copy_job(), write_rows()
    folder = stage(rows, tmp_path / "out", job).folder
    (folder / "train.jsonl").unlink()
    assert not stage(rows, tmp_path / "out", job, listener).skipped
    assert "train.jsonl is gone" in listener.said[0]
    assert len(read_jsonl(folder / "train.jsonl")) == 4


@pytest.mark.parametrize("record", [None, "{", "[]", "{}"])
def test_a_folder_without_a_record_is_moved_aside_not_overwritten(
    tmp_path: Path, write_rows: WriteRows, copy_job: Any, record: str | None
) -> None:
    folder = tmp_path / "out" / "r" / "build"
    folder.mkdir(parents=True)
    if record is not None:
        (folder / "stage.json").write_text(record)
    (folder / "train.jsonl").write_text("mine\n")
    stage(write_rows(), tmp_path / "out", copy_job())
    assert (folder.with_name("build.previous") / "train.jsonl").read_text() == "mine\n"


def test_a_stage_held_by_another_process_is_refused(tmp_path: Path, write_rows: WriteRows, copy_job: Any) -> None:
    rows, root = write_rows(), tmp_path / "out"
    with FolderLock(root / "r" / ".locks" / "build"), pytest.raises(UsageError, match="another pipo process"):
        stage(rows, root, copy_job())
    assert not stage(rows, root, copy_job()).skipped


SLOW = """
import sys, time
from pathlib import Path
from pipo_core.files import append_jsonl
from pipo_core.pipeline.stage import run_stage
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.reporting import SilentReporter

def job(recipe, out, reporter, made_by):
    append_jsonl(out / "train.jsonl", [{"n": 0, "word": "a", "seed": 0}])
    print("working", flush=True)
    time.sleep(60)

recipe = BuildRecipe(run="r", rollouts=[sys.argv[1]])
run_stage(recipe, Path(sys.argv[2]), reporter=SilentReporter(), jobs={"build": job})
"""


def test_killed_in_the_middle_refuses_others_then_goes_on(
    tmp_path: Path, write_rows: WriteRows, listener: Any, copy_job: Any
) -> None:
    rows, root = write_rows(), tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(rows), str(root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        job = copy_job()
        with pytest.raises(UsageError, match="another pipo process"):
            stage(rows, root, job)
        process.send_signal(signal.SIGKILL)
    assert read_json(root / "r" / "build" / "stage.json")["state"] == "running"
    stage(rows, root, job, listener)
    assert job.calls == [("build", 1)]
    assert "killed" in listener.said[0]
    assert [row["n"] for row in read_jsonl(root / "r" / "build" / "train.jsonl")] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", [[], [".stage.json.0123456789ab.partial"]])
def test_a_folder_that_a_killed_start_left_empty_is_no_strangers(
    tmp_path: Path, write_rows: WriteRows, copy_job: Any, left: list[str]
) -> None:
    folder = tmp_path / "out" / "r" / "build"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_text("{")
    stage(write_rows(), tmp_path / "out", copy_job())
    assert sorted(path.name for path in folder.parent.iterdir()) == [".locks", "build"]
    assert not list(folder.glob("*.partial"))


def test_a_full_disk_is_said_even_where_it_cannot_be_written_down(
    tmp_path: Path, write_rows: WriteRows, copy_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, root = write_rows(), tmp_path / "out"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def job(recipe: object, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        monkeypatch.setattr(os, "fsync", full)
        full()
        return {}

    with pytest.raises(MachineError, match="build could not be written: the disk is full") as caught:
        stage(rows, root, job)
    monkeypatch.undo()
    assert "same command again" in str(caught.value.hint)
    assert read_json(root / "r" / "build" / "stage.json")["state"] == "running"
    assert not stage(rows, root, copy_job()).skipped


def test_an_absent_input_is_said_before_anything_is_written(tmp_path: Path, copy_job: Any) -> None:
    with pytest.raises(MissingInputError, match="rollouts"):
        stage(tmp_path / "nothing.jsonl", tmp_path / "out", copy_job())
    assert not (tmp_path / "out" / "r" / "build").exists()


def test_a_skipped_stage_needs_neither_torch_nor_much_cpu(tmp_path: Path, write_rows: WriteRows, copy_job: Any) -> None:
    rows = write_rows()
    stage(rows, tmp_path / "out", copy_job())
    script = (
        "import sys; from pathlib import Path; from pipo_core.pipeline.stage import run_stage\n"
        "from pipo_core.recipes.build import BuildRecipe; from pipo_core.reporting import SilentReporter\n"
        "recipe = BuildRecipe(run='r', rollouts=[sys.argv[1]])\n"
        "assert run_stage(recipe, Path(sys.argv[2]), reporter=SilentReporter()).skipped\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'swift'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(rows), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_no_stage_may_lie_where_another_is_set_aside(tmp_path: Path, write_rows: WriteRows) -> None:
    recipe = BuildRecipe(run="r", rollouts=[str(write_rows())])
    with pytest.raises(UsageError, match=r"may not contain \.previous"):
        run_stage(recipe, tmp_path, reporter=SilentReporter(), name="build.previous")
