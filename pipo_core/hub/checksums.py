"""The hub's checksums: SHA-256 of large files, git's own SHA-1 of small ones."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_STEP = 1 << 20


def matches(path: Path, digest: str, advance: Callable[[int], object] = lambda _: None) -> bool:
    """Return whether the content of a file has a checksum.

    Args:
        path: the file.
        digest: 64 hex digits of SHA-256, or 40 of git's SHA-1.
        advance: called after each block with the number of bytes that it had.
    """
    if len(digest) == 64:
        state = hashlib.sha256()
    else:
        # Git hashes a header with the kind and the length before the content.
        state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while step := file.read(_STEP):
            state.update(step)
            advance(len(step))
    return state.hexdigest() == digest
