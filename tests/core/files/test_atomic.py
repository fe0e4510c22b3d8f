import os
from pathlib import Path

import pytest

from pipo_core.errors import MachineError
from pipo_core.files import new_file, new_folder, write_atomic
from tests.core.files.listing import names


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_atomic(target, "first")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert names(target.parent) == ["a.txt"]


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(MachineError, match=r"a\.txt could not be written: the disk is full") as caught:
        write_atomic(target, "new")
    assert "same command again" in str(caught.value.hint)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_files_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("x")
    (tmp_path / "folder").mkdir()
    write_atomic(tmp_path / "ours", "x")
    with new_folder(tmp_path / "our folder"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert (tmp_path / "our folder").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_a_large_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "rows"
    with new_file(target) as file:
        file.write(b"1\n")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), new_file(target) as file:
        file.write(b"2\n")
        raise KeyboardInterrupt
    assert (target.read_bytes(), names(tmp_path)) == (b"1\n", ["rows"])
