"""Locks that reserve a folder for one process at a time."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pipo_core.errors import MachineError, UsageError

_POLL_SECONDS = 0.1


def lock_of(folder: Path) -> Path:
    """Return the folder to lock in place of `folder`, which itself may be moved while the lock is held."""
    return folder.parent / ".locks" / folder.name


def workers_lock_of(folder: Path) -> Path:
    """Return the folder that the worker processes of a job lock while they write into `folder`.

    A worker can outlive the process that started it for a short time; the next start waits until this lock is free.
    """
    return lock_of(folder) / "workers"


class FolderLock:
    """A context manager that reserves a folder for one pipo process, through a lock on `folder/.lock`.

    The kernel releases the lock when the process ends, however it ends, so there are no stale locks.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0, about: Path | None = None) -> None:
        """Make a lock that is not held yet.

        Args:
            folder: the folder to lock; created on entering.
            patience: seconds to wait for another holder.
            about: the folder that the lock protects, for the message; `folder` if absent.
        """
        self.folder = folder
        self._about = about or folder
        self._patience = patience
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            UsageError: if another process, or another `FolderLock` of this one, still holds it after `patience`.
            MachineError: if the file system has no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + self._patience
        try:
            while not self._try_lock(handle):
                if time.monotonic() >= deadline:
                    raise UsageError(
                        f"another pipo process works in {self._about}",
                        hint="wait for it to end, or work in another folder (run=NAME)",
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
        """Release the lock. The file stays: removing it would let two processes lock two files."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _try_lock(self, handle: int) -> bool:
        try:
            return try_lock(handle)
        except OSError as error:
            raise MachineError(
                f"{self.folder} cannot be locked: {error.strerror}",
                hint="choose a folder on another file system",
            ) from error


def try_lock(handle: int) -> bool:
    """Lock an open file or folder without waiting; return False if another handle holds its lock.

    Raises:
        OSError: if the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
