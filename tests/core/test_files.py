import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import (
    FolderLock,
    append_jsonl,
    file_fingerprint,
    fingerprint,
    new_folder,
    read_json,
    read_jsonl,
    write_atomic,
    write_json,
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
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
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
