"""Files that are whole or absent: a final name never belongs to something partial.

Everything here writes to a sibling first, flushes it to the disk and renames it. What this does not do:
guard against two writers of the same name; `FolderLock` is for that.
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipo_core.errors import MissingInputError, UsageError

_PARTIAL = ".partial"


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` (text as UTF-8) so that `path` holds the old content or all of the new, never less."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def write_json(path: Path, obj: object) -> None:
    """Write `obj` as indented JSON, atomically. NaN and infinities are not JSON: ValueError."""
    write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what the JSON file at `path` holds. Raises MissingInputError when it is absent or broken."""
    raw = _read(path)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MissingInputError(f"{path}: not readable as JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file at `path`. Raises MissingInputError when it is absent, broken or no object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise MissingInputError(f"{path}: does not hold a JSON object")
    return content


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final`, which it becomes (replacing it) if the block succeeds.

    On an error the temporary folder is removed. One that a killed process left is removed by the next call
    for the same `final`: a living writer holds a lock on its folder, a dead one does not.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final)
    temporary = _sibling(final)
    temporary.mkdir()
    handle = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                _fsync(Path(folder, name))
            _fsync(Path(folder))
        # A folder that is not empty cannot be renamed over, so the old one steps aside first.
        aside = _sibling(final)
        if final.exists():
            final.rename(aside)
        temporary.rename(final)
        _fsync(final.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append `rows` to the JSON-lines file at `path`, one line each, and flush them to the disk.

    A last line that a killed writer left half-written is cut off first, so it never ends up in the middle.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    new = not path.exists()
    with path.open("ab+") as file:
        tail = _last_line(file)
        if tail and _row(tail) is None:
            file.truncate(file.seek(0, os.SEEK_END) - len(tail))
        elif tail:
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        _fsync(path.parent)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file. A truncated last line (a killed writer's) is left out.

    Raises MissingInputError when the file is absent or any other line is not a JSON object; blank lines
    are skipped.
    """
    lines = _read(path).split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise MissingInputError(f"{path}:{number}: not a JSON object")
    return rows


def fingerprint(obj: object) -> str:
    """Return 16 hex digits that are equal for equal JSON-able objects, whatever the order of their keys."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Return 16 hex digits of a file's content, or of a folder's relative names and contents.

    Hidden files (locks, temporary ones) do not count. Raises MissingInputError when `path` is absent.
    """
    if path.is_file():
        return _digest(path)[:16]
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such file or folder")
    inner = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    shown = sorted((name.as_posix(), file) for name, file in inner.items() if not _hidden(name))
    return fingerprint([[name, _digest(file)] for name, file in shown])


class FolderLock:
    """A context manager that keeps a folder to one pipo process, through a lock on `folder/.lock`.

    The kernel drops the lock when the process ends, however it ends, so no stale lock can stay behind.
    """

    def __init__(self, folder: Path) -> None:
        """Name the `folder` to lock; it is created on entering."""
        self.folder = folder
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock. Raises UsageError when another process (or another `FolderLock`) holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"another pipo process works in {self.folder}",
                hint="wait for it to end, or choose another folder with --out",
            ) from None
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PARTIAL}")


def _remove_leftovers(final: Path) -> None:
    for folder in final.parent.glob(f".{_glob_literal(final.name)}.*{_PARTIAL}"):
        if not folder.is_dir():
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def _glob_literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _last_line(file: BinaryIO) -> bytes:
    """Return what stands behind the file's last newline, read backwards: these files grow long."""
    position = file.seek(0, os.SEEK_END)
    tail = b""
    while position and b"\n" not in tail:
        step = min(position, 1 << 16)
        position = file.seek(position - step)
        tail = file.read(step) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
