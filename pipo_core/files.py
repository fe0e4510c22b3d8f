"""Files that are whole or absent: a final name never belongs to something partial.

Everything here writes to a sibling first, flushes it to the disk and renames it. What this does not do:
guard against two writers of the same name; `FolderLock` is for that. A full disk is said with the name of
what could not be written (`writing`).
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipo_core.errors import MachineError, MissingInputError, UsageError

_PARTIAL = ".partial"
_ASIDE = ".aside"
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
# Libraries that write for themselves keep only words: safetensors the system's, torch (the last two) its own.
_FULL_IN_WORDS = ("No space left on device", "PytorchStreamWriter failed", " unexpected pos ")
_POLL_SECONDS = 0.1


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let a full disk name what it had no room for: raise MachineError instead of whatever a library raises."""
    try:
        yield
    except Exception as error:
        full = full_disk(error, path)
        if full is None:
            raise
        raise full from error


def full_disk(error: BaseException, path: Path) -> MachineError | None:
    """Return what to say if `error`, met while writing `path`, comes from a full disk; None for any other error."""
    why = _FULL.get(error.errno or 0) if isinstance(error, OSError) else None
    if why is None and any(words in str(error) for words in _FULL_IN_WORDS):
        why = _FULL[errno.ENOSPC]
    if why is None:
        return None
    hint = "free space there, then give the same command again"
    return MachineError(f"{path} could not be written: {why}", hint=hint)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` (text as UTF-8) so that `path` holds the old content or all of the new, never less."""
    with new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`, which it becomes (replacing it) if the block succeeds.

    On an error it is removed. What a killed process left is removed by `remove_partial`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(path)
        try:
            with temporary.open("xb") as file:
                yield file
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

    A process that is killed leaves the old folder or the new one. On an error the temporary folder is removed.
    One that a killed process left is removed by the next call for the same `final`: a living writer holds a
    lock on its folder, a dead one does not.
    """
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_after_killed(final)
        temporary = _sibling(final)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield temporary
            fsync_tree(temporary)
            _put(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush everything in `folder`, and the folder itself, to the disk."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            _fsync(Path(inner, name))
        _fsync(Path(inner))


def remove_partial(folder: Path, *, deep: bool = True) -> None:
    """Remove what killed writers left in `folder`, and with `deep` below it; nobody may be writing there."""
    # All names first: a walk would stumble over a folder that goes while it is under way.
    for path in [*(folder.rglob if deep else folder.glob)(f".*{_PARTIAL}")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove `folder`, which exists: its name goes first, so that it never belongs to a part of it."""
    _clean_up_after_killed(folder)
    doomed = _sibling(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append `rows` to the JSON-lines file at `path`, one line each, and flush them to the disk.

    A last line that a killed writer left half-written is cut off first, so it never ends up in the middle.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    new = not path.exists()
    with writing(path):
        _append(path, text)
        if new:
            _fsync(path.parent)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        tail = _last_line(file)
        if tail and _row(tail) is None:
            file.truncate(file.seek(0, os.SEEK_END) - len(tail))
        elif tail:
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


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


def lock_of(folder: Path) -> Path:
    """Return the folder to lock for `folder`: beside it, since `folder` may be moved while the lock is held."""
    return folder.parent / ".locks" / folder.name


def workers_lock_of(folder: Path) -> Path:
    """Return the folder that processes lock which a job starts and which write into `folder`.

    They may outlive the process that started them by a little; who comes next waits until the lock is free.
    """
    return lock_of(folder) / "workers"


class FolderLock:
    """A context manager that keeps a folder to one pipo process, through a lock on `folder/.lock`.

    The kernel drops the lock when the process ends, however it ends, so no stale lock can stay behind.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0, about: Path | None = None) -> None:
        """Name the `folder` to lock; it is created on entering, which waits `patience` seconds for another holder.

        `about` is what the lock stands for, if not its own folder.
        """
        self.folder = folder
        self._about = about or folder
        self._patience = patience
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock. Raises UsageError when another process (or another `FolderLock`) holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + self._patience
        try:
            while not _locked(handle):
                if time.monotonic() >= deadline:
                    raise UsageError(
                        f"another pipo process works in {self._about}",
                        hint="wait for it to end, or choose another folder with --out",
                    )
                time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(handle)
            raise
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


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _put(temporary: Path, final: Path) -> None:
    """Give the folder `temporary` the name `final`, whatever has it now."""
    aside = _aside(final)
    if not final.exists():
        temporary.rename(final)
    elif not _exchange(temporary, final):
        # A folder that is not empty cannot be renamed over. A process killed between these two lines leaves
        # no `final`, and the next call puts the old one back.
        final.rename(aside)
        temporary.rename(final)
    _fsync(final.parent)
    for old in (aside, temporary):
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths swap names in a single step, and return True; False where the system cannot."""
    import ctypes  # imported here: only this needs it, and not every command comes here

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}{_ASIDE}")


def _clean_up_after_killed(final: Path) -> None:
    aside = _aside(final)
    if aside.exists() and final.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.rename(final)
    for folder in final.parent.glob(f".{_glob_literal(final.name)}.*{_PARTIAL}"):
        if not folder.is_dir():
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            if _locked(handle):
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
