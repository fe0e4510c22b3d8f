"""Recognises errors of a full disk, whichever library raises them, and reports the path that could not be written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipo_core.errors import MachineError

_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
# safetensors and torch raise without an errno, so a full disk is recognised by these parts of their messages:
# the first is safetensors', the others are torch's.
_MESSAGES_WITHOUT_ERRNO = ("No space left on device", "PytorchStreamWriter failed", " unexpected pos ")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise MachineError with the name `path` when the block fails because the disk is full.

    Args:
        path: the file or folder that the block writes.

    Raises:
        MachineError: if the disk is full or its quota used up; any other error of the block passes through.
    """
    try:
        yield
    except Exception as error:
        full = full_disk(error, path)
        if full is None:
            raise
        raise full from error


def full_disk(error: BaseException, path: Path) -> MachineError | None:
    """Return the error to report when `error` comes from a full disk, None for any other error.

    Args:
        error: an exception that was raised while `path` was written.
        path: the path to name in the message.
    """
    reason = _REASONS.get(error.errno or 0) if isinstance(error, OSError) else None
    if reason is None and any(part in str(error) for part in _MESSAGES_WITHOUT_ERRNO):
        reason = _REASONS[errno.ENOSPC]
    if reason is None:
        return None
    hint = "free space there, then give the same command again"
    return MachineError(f"{path} could not be written: {reason}", hint=hint)
