"""Single files that are replaced in one step."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipo_core.files.disk_space import writing

PARTIAL = ".partial"
"""Suffix of hidden temporary names: such a file or folder is not complete."""
DAMAGED = ".damaged"
"""Suffix of a file or folder that was set aside because it is damaged."""


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` (text as UTF-8); after a crash `path` holds either the old content or all of the new.

    Raises:
        MachineError: if the disk is full.
    """
    with new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path` that replaces `path` if the block succeeds.

    After an error in the block the temporary file is removed. `remove_partial` removes those of killed processes.

    Args:
        path: the final name; its folder is created.

    Raises:
        MachineError: if the disk is full.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = partial_beside(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync(path.parent)


def partial_beside(path: Path) -> Path:
    """Return a new hidden name beside `path`, for a file or folder that will be renamed to it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
