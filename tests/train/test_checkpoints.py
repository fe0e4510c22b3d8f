"""Only whole checkpoints are gone on from."""

import json

import pytest

from pipo_core.errors import UsageError
from pipo_core.train.checkpoints import MARKER, mark_complete, newest_complete, remove_incomplete, step_of


def make(folder, step, *, marked=True, made_by="a"):
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "shards").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"w" * step)
    (checkpoint / "shards" / "optimizer.pt").write_bytes(b"o" * step)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 50}))
    if marked:
        mark_complete(checkpoint, made_by)
    return checkpoint


def test_the_newest_whole_one_is_chosen_by_step(tmp_path):
    assert newest_complete(tmp_path / "absent", "a") is None
    assert newest_complete(tmp_path, "a") is None
    make(tmp_path, 9)
    ten = make(tmp_path, 10)
    make(tmp_path, 20, marked=False)
    (tmp_path / "last-checkpoint").symlink_to("checkpoint-20")
    assert newest_complete(tmp_path, "a") == ten
    assert step_of(ten) == (10, 50)


@pytest.mark.parametrize("damage", ["truncate", "remove", "marker"])
def test_a_damaged_one_is_passed_over(tmp_path, damage):
    older = make(tmp_path, 5)
    newer = make(tmp_path, 7)
    if damage == "truncate":
        (newer / "model.safetensors").write_bytes(b"w")
    elif damage == "remove":
        (newer / "shards" / "optimizer.pt").unlink()
    else:
        (newer / MARKER).write_text('{"files"')
    assert newest_complete(tmp_path, "a") == older


def test_other_settings_are_refused(tmp_path):
    make(tmp_path, 5, made_by="b")
    with pytest.raises(UsageError, match="checkpoint-5 was trained with other settings"):
        newest_complete(tmp_path, "a")


def test_what_is_not_whole_is_removed(tmp_path):
    make(tmp_path, 5)
    make(tmp_path, 6, marked=False)
    (tmp_path / "args.json").write_text("{}")
    remove_incomplete(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["args.json", "checkpoint-5"]
