"""Only complete checkpoints are resumed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pipo_core.errors import UsageError
from pipo_core.train.checkpoints import (
    MARKER,
    keep_newest,
    logged,
    mark_complete,
    newest_complete,
    remove_incomplete,
    set_checkpoints_aside,
    step_of,
)


def make(folder: Path, step: int, *, marked: bool = True, made_by: str = "a") -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "shards").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"w" * step)
    (checkpoint / "shards" / "optimizer.pt").write_bytes(b"o" * step)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 50}))
    if marked:
        mark_complete(checkpoint, made_by)
    return checkpoint


def test_the_newest_complete_checkpoint_is_chosen_by_step(tmp_path: Path) -> None:
    assert newest_complete(tmp_path / "absent", "a") is None
    assert newest_complete(tmp_path, "a") is None
    make(tmp_path, 9)
    ten = make(tmp_path, 10)
    make(tmp_path, 20, marked=False)
    (tmp_path / "last-checkpoint").symlink_to("checkpoint-20")
    assert newest_complete(tmp_path, "a") == ten
    assert step_of(ten) == (10, 50)


@pytest.mark.parametrize("damage", ["truncate", "remove", "marker"])
def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, damage: str) -> None:
    older = make(tmp_path, 5)
    newer = make(tmp_path, 7)
    if damage == "truncate":
        (newer / "model.safetensors").write_bytes(b"w")
    elif damage == "remove":
        (newer / "shards" / "optimizer.pt").unlink()
    else:
        (newer / MARKER).write_text('{"files"')
    assert newest_complete(tmp_path, "a") == older


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make(tmp_path, 5, made_by="b")
    with pytest.raises(UsageError, match="checkpoint-5 was trained with other settings"):
        newest_complete(tmp_path, "a")


def test_incomplete_checkpoints_are_removed(tmp_path: Path) -> None:
    make(tmp_path, 5)
    make(tmp_path, 6, marked=False)
    (tmp_path / "args.json").write_text("{}")
    remove_incomplete(tmp_path, lambda message: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["args.json", "checkpoint-5"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    for age, step in enumerate((2, 10, 9)):
        checkpoint = make(tmp_path, step)
        os.utime(checkpoint, (1000 - age, 1000 - age))
    keep_newest(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]


def test_incomplete_checkpoints_do_not_count_among_those_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        make(tmp_path, step, marked=step < 3)
    keep_newest(tmp_path, 2)
    assert newest_complete(tmp_path, "a") == tmp_path / "checkpoint-2"
    assert names(tmp_path) == [f"checkpoint-{step}" for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("files", range(5))
def test_a_checkpoint_that_was_half_removed_when_the_process_was_killed_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)

    def remove_some(path: Path) -> None:
        for file in sorted(path.rglob("*"), key=lambda file: file.name)[:files]:
            if file.is_file():
                file.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", remove_some)
    with pytest.raises(KeyboardInterrupt):
        keep_newest(tmp_path, 1)
    monkeypatch.undo()
    assert newest_complete(tmp_path, "a") == tmp_path / "checkpoint-2"
    remove_incomplete(tmp_path, lambda message: None)
    assert names(tmp_path) == ["checkpoint-2"] if files else ["checkpoint-1", "checkpoint-2"]


def test_a_checkpoint_holds_the_rows_of_the_log(tmp_path: Path) -> None:
    make(tmp_path, 4)
    assert logged(tmp_path, 4) == []
    assert logged(tmp_path, 5) == []
    state = {"global_step": 4, "max_steps": 50, "log_history": [{"step": 2, "loss": 1.0}]}
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state))
    assert logged(tmp_path, 4) == [{"step": 2, "loss": 1.0}]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "shards/optimizer.pt", "trainer_state.json", MARKER], ids=lambda name: Path(name).name
)
@pytest.mark.parametrize("act", ["flip", "cut", "remove"])
def test_a_checkpoint_that_is_not_as_it_was_written_is_set_aside_and_said(tmp_path: Path, name: str, act: str) -> None:
    older, newer = make(tmp_path, 5), make(tmp_path, 7)
    file = newer / name
    content = file.read_bytes()
    middle = len(content) // 2
    if act == "flip":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif act == "cut":
        file.write_bytes(content[:middle])
    elif name != MARKER:
        file.unlink()
    else:
        pytest.skip("without its marker a checkpoint was never complete")
    said: list[str] = []
    set_checkpoints_aside(tmp_path, said.append)
    assert [line for line in said if f"{newer / name} is damaged" in line] == said
    assert len(said) == 1
    assert (tmp_path / "checkpoint-7.damaged").is_dir()
    assert newest_complete(tmp_path, "a") == older
    remove_incomplete(tmp_path, lambda message: None)
    keep_newest(tmp_path, 1)
    assert older.is_dir()
    set_checkpoints_aside(tmp_path, said.append)
    assert len(said) == 1


def test_an_edited_note_is_no_damage(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 5, marked=False)
    (checkpoint / "README.md").write_text("by PEFT")
    mark_complete(checkpoint, "a")
    (checkpoint / "README.md").write_text("mine")
    set_checkpoints_aside(tmp_path, pytest.fail)
    remove_incomplete(tmp_path, lambda message: None)
    assert newest_complete(tmp_path, "a") == checkpoint


def test_markers_of_older_versions_are_compared_by_size(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 5)
    marker = json.loads((checkpoint / MARKER).read_text())
    (checkpoint / MARKER).write_text(json.dumps({key: marker[key] for key in ("made_by", "files")}))
    set_checkpoints_aside(tmp_path, pytest.fail)
    (checkpoint / "model.safetensors").write_bytes(b"w")
    said: list[str] = []
    set_checkpoints_aside(tmp_path, said.append)
    assert len(said) == 1
