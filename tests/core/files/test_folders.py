import ctypes
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipo_core.files import new_folder, remove_folder, remove_partial
from tests.core.files.listing import names

SPAWN = multiprocessing.get_context("spawn")


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
            seen.append(names(final) if final.exists() else None)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, watched)

    with monkeypatch.context():
        for name in ("rename", "fsync", "unlink", "rmdir"):
            watch(name)
        _replace(final)
        monkeypatch.undo()
    return [*seen, names(final)]


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
    assert names(tmp_path) == ["model"]
    assert names(final) == ["inner"]
    with new_folder(final) as folder:
        (folder / "c").write_text("3")
    assert names(tmp_path) == ["model"]
    assert names(final) == ["c"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_for_the_owner_alone_get_the_rights_of_new_files(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "made") as folder:
            (folder / "sub").mkdir(0o755)
            for name, rights in {"weights": 0o600, "sub/tool": 0o700}.items():
                (folder / name).touch(rights)
    finally:
        os.umask(before)
    assert (tmp_path / "made" / "weights").stat().st_mode & 0o777 == mode
    assert (tmp_path / "made" / "sub" / "tool").stat().st_mode & 0o777 == mode | 0o100


def test_a_folder_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").write_text("1")
    seen = _names_seen(final, monkeypatch)
    assert seen[0] == ["old"]
    assert seen[-1] == ["new"]
    assert all(names in (["old"], ["new"]) for names in seen), "there is no moment without it"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("library", [NoExchange, RefusedExchange])
def test_where_folders_cannot_be_exchanged_a_killed_one_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: type
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    final = tmp_path / "model"
    final.mkdir()
    (final / "old").write_text("1")
    _replace(final)
    assert (names(final), names(tmp_path)) == (["new"], ["model"])

    rename, remove = Path.rename, "pipo_core.files.folders.shutil.rmtree"
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
        assert names(final) == ["new"], "it is put back first of all"
        (folder / "third").write_text(str(1 / 0))
    assert (names(final), names(tmp_path)) == (["new"], ["model"])


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
    assert (names(final), names(tmp_path)) == (["old"], ["model"])


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
    assert len(names(tmp_path)) == 2, "the living writer's folder must stay"
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert len(names(tmp_path)) == 2, "a killed writer cannot clean up"
    with new_folder(final) as folder:
        (folder / "b").write_text("2")
    assert names(tmp_path) == ["mo[d]el"]
    assert names(final) == ["b"]


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
        killed.setattr("pipo_core.files.folders.shutil.rmtree", die)
        remove_folder(folder)
    assert not folder.exists()
    folder.mkdir()
    remove_folder(folder)
    assert names(tmp_path) == []
