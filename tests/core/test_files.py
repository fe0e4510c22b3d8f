import ctypes
import errno
import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.errors import MachineError, MissingInputError, UsageError
from pipo_core.files import (
    FolderLock,
    append_jsonl,
    file_fingerprint,
    fingerprint,
    full_disk,
    new_file,
    new_folder,
    read_json,
    read_jsonl,
    remove_folder,
    remove_partial,
    write_atomic,
    write_json,
    writing,
)

SPAWN = multiprocessing.get_context("spawn")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_atomic(target, "first")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert _names(target.parent) == ["a.txt"]


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
    assert _names(tmp_path) == ["a.txt"]


def test_files_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("x")
    (tmp_path / "folder").mkdir()
    write_atomic(tmp_path / "ours", "x")
    with new_folder(tmp_path / "our folder"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert (tmp_path / "our folder").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None, "ü"], "a": 0.5})
    assert read_json(path) == {"b": [1, None, "ü"], "a": 0.5}
    assert path.read_text(encoding="utf-8").index('"b"') < path.read_text(encoding="utf-8").index('"a"')
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    with pytest.raises(MissingInputError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(MissingInputError, match="cannot be read"):
        read_json(tmp_path)
    for broken in (b'{"a": ', b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(broken)
        with pytest.raises(MissingInputError, match="not readable as JSON"):
            read_json(path)


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with new_folder(final) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
        assert not final.exists()
    assert (final / "inner" / "a").read_text() == "1"
    with pytest.raises(KeyboardInterrupt), new_folder(final) as folder:
        (folder / "b").write_text("2")
        raise KeyboardInterrupt
    assert _names(tmp_path) == ["model"]
    assert _names(final) == ["inner"]
    with new_folder(final) as folder:
        (folder / "c").write_text("3")
    assert _names(tmp_path) == ["model"]
    assert _names(final) == ["c"]


class NoExchange:
    """A C library without the call, or on a file system without it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., int]:
        raise AttributeError(name)


class RefusedExchange(NoExchange):
    def __getattr__(self, name: str) -> Callable[..., int]:
        def refuse(*_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

        return refuse


class Killed(BaseException):
    """Nothing may be done after it."""


def _replace(final: Path) -> None:
    with new_folder(final) as folder:
        (folder / "new").write_text("2")


def _names_seen(final: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str] | None]:
    """Replace `final` and return what it held before every system call that renames, flushes or removes."""
    seen: list[list[str] | None] = []

    def watch(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def watched(*arguments: object, **options: object) -> object:
            seen.append(_names(final) if final.exists() else None)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, watched)

    with monkeypatch.context():
        for name in ("rename", "fsync", "unlink", "rmdir"):
            watch(name)
        _replace(final)
        monkeypatch.undo()
    return [*seen, _names(final)]


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").write_text("1")
    seen = _names_seen(final, monkeypatch)
    assert seen[0] == ["old"]
    assert seen[-1] == ["new"]
    assert all(names in (["old"], ["new"]) for names in seen), "there is no moment without it"
    assert _names(tmp_path) == ["model"]


@pytest.mark.parametrize("library", [NoExchange, RefusedExchange])
def test_where_folders_cannot_be_exchanged_a_killed_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: type
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").write_text("1")
    _replace(final)
    assert (_names(final), _names(tmp_path)) == (["new"], ["model"])

    rename, remove = Path.rename, "pipo_core.files.shutil.rmtree"
    with monkeypatch.context() as killed:

        def die_at_the_second(path: Path, target: Path) -> Path:
            if target == final:
                raise Killed
            return rename(path, target)

        killed.setattr(Path, "rename", die_at_the_second)
        killed.setattr(remove, lambda *_, **__: None)
        with pytest.raises(Killed):
            _replace(final)
    assert not final.exists(), "it was killed at the one moment"
    with pytest.raises(ZeroDivisionError), new_folder(final) as folder:
        assert _names(final) == ["new"], "it is put back first of all"
        (folder / "third").write_text(str(1 / 0))
    assert (_names(final), _names(tmp_path)) == (["new"], ["model"])


def test_an_exchange_that_fails_for_another_reason_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(NoExchange):
        def __getattr__(self, name: str) -> Callable[..., int]:
            def fail(*_: object) -> int:
                ctypes.set_errno(errno.EIO)
                return -1

            return fail

    monkeypatch.setattr(ctypes, "CDLL", Broken)
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").write_text("1")
    with pytest.raises(OSError, match="Input/output"):
        _replace(final)
    assert (_names(final), _names(tmp_path)) == (["old"], ["model"])


def test_a_large_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "rows"
    with new_file(target) as file:
        file.write(b"1\n")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), new_file(target) as file:
        file.write(b"2\n")
        raise KeyboardInterrupt
    assert (target.read_bytes(), _names(tmp_path)) == (b"1\n", ["rows"])


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    left = [".a.json.0123456789ab.partial", "in/.b.0123456789ab.partial", ".c.0123456789ab.partial/in/x"]
    kept = ["a.json", ".lock", "in/b.partial", ".hidden/x"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_partial(tmp_path, deep=False)
    assert (tmp_path / left[1]).exists()
    remove_partial(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        kept
    )


def test_a_folder_that_is_removed_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "a").write_text("1")

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as killed, pytest.raises(Killed):
        killed.setattr("pipo_core.files.shutil.rmtree", die)
        remove_folder(folder)
    assert not folder.exists()
    folder.mkdir()
    remove_folder(folder)
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 59328 vs 59216"), "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), None),
        (RuntimeError("something else"), None),
    ],
)
def test_a_full_disk_is_known_by_number_and_by_words(tmp_path: Path, error: Exception, full: str | None) -> None:
    if full is None:
        assert full_disk(error, tmp_path) is None
        with pytest.raises(type(error)), writing(tmp_path):
            raise error
        return
    with pytest.raises(MachineError, match=f"weights could not be written: {full}") as caught, writing(Path("weights")):
        raise error
    assert caught.value.exit_code == 4


def _write_forever(final: Path) -> None:
    with new_folder(final) as folder:
        (folder / "half").write_text("x")
        time.sleep(60)


def test_new_folder_removes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "mo[d]el"
    writer = SPAWN.Process(target=_write_forever, args=(final,))
    writer.start()
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".mo*/half")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with new_folder(final) as folder:
        (folder / "a").write_text("1")
    assert len(_names(tmp_path)) == 2, "the living writer's folder must stay"
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert len(_names(tmp_path)) == 2, "a killed writer cannot clean up"
    with new_folder(final) as folder:
        (folder / "b").write_text("2")
    assert _names(tmp_path) == ["mo[d]el"]
    assert _names(final) == ["b"]


def test_jsonl_appends_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}, {"b": "line\nbreak\u2028"}])
    append_jsonl(path, [])
    append_jsonl(path, [{"c": None}])
    assert read_jsonl(path) == [{"a": 1}, {"b": "line\nbreak\u2028"}, {"c": None}]
    path.write_bytes(b'\n{"a": 1}\r\n\n{"b": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}], "a hand-written file may end without a newline"


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1), st.data())
def test_jsonl_survives_a_kill_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int | str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    append_jsonl(path, rows)
    raw = path.read_bytes()
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut])
    kept = read_jsonl(path)
    assert kept == rows[: len(kept)]
    assert len(kept) >= raw[:cut].count(b"\n")
    append_jsonl(path, rows[len(kept) :])
    assert read_jsonl(path) == rows


def test_jsonl_cuts_off_a_long_half_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * 200_000)
    append_jsonl(path, [{"c": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b"\xff"])
def test_jsonl_names_the_broken_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(MissingInputError, match=r"rows\.jsonl:2: not a JSON object"):
        read_jsonl(path)


def test_fingerprint_ignores_the_order_of_keys_only() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert len(fingerprint(None)) == 16


def test_file_fingerprint_sees_names_and_contents_but_not_locks(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub" / "b").write_text("2")
    first = file_fingerprint(folder)
    (folder / ".lock").write_text("")
    assert file_fingerprint(folder) == first
    (folder / "a").rename(folder / "c")
    renamed = file_fingerprint(folder)
    (folder / "c").write_text("3")
    assert len({first, renamed, file_fingerprint(folder)}) == 3
    assert file_fingerprint(folder / "c") != file_fingerprint(folder / "sub" / "b")
    with pytest.raises(MissingInputError):
        file_fingerprint(tmp_path / "absent")


def _hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with FolderLock(folder):
        held.set()
        time.sleep(60)


def test_folder_lock_keeps_others_out_until_the_holder_dies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    held = SPAWN.Event()
    holder = SPAWN.Process(target=_hold, args=(folder, held))
    holder.start()
    assert held.wait(30)
    with pytest.raises(UsageError, match="another pipo process works in"), FolderLock(folder):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with FolderLock(folder), pytest.raises(UsageError), FolderLock(folder):
        pass
    with FolderLock(folder):
        pass


def test_json_lines_are_utf8_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"text": "×→"}])
    assert "×→" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "×→"}


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.__enter__()
    timer = threading.Timer(0.3, lock.__exit__, (None, None, None))
    timer.start()
    with FolderLock(tmp_path, patience=30):
        timer.join()
        with (
            pytest.raises(UsageError, match=r"works in the run$"),
            FolderLock(tmp_path, patience=0.1, about=Path("the run")),
        ):
            pass
