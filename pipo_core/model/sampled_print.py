"""A fingerprint of all of a checkpoint's weights: small ones are read whole, of large ones rows all over them.

It tells in a fraction of a second that one part was trained anew. A change to a few rows of a large matrix alone may
escape it. Adapters on disk hold another fingerprint, that of `base_print`.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pipo_core.errors import CheckpointError
from pipo_core.model.weight_files import byte_ranges, locate_weights

_WHOLE = 1 << 19
"""Values up to which all of a weight count: norms, gates, small projections."""
_ROWS = 24
"""Rows of a larger weight that count, evenly spaced from its first to its last."""
_HEX_DIGITS = 16


def sampled_print(folder: Path) -> str:
    """Return a fingerprint of names, shapes, number formats and values of all weights of a checkpoint.

    It does not depend on the number of files or on prefixes of names.

    Raises:
        CheckpointError: if files are missing or damaged.
    """
    digest = hashlib.sha256()
    sources = sorted(locate_weights(folder).items())
    files = {source.file for _, source in sources}
    try:
        ranges = {file: byte_ranges(file) for file in files}
        with ExitStack() as stack:
            opened = {file: stack.enter_context(file.open("rb", buffering=0)) for file in files}
            for name, source in sources:
                digest.update(f"{name} {source.dtype} {source.shape}\n".encode())
                begin, size = ranges[source.file][source.name]
                for first, count in _pieces(source.shape, size):
                    opened[source.file].seek(begin + first)
                    digest.update(opened[source.file].read(count))
    except OSError as error:
        raise CheckpointError(f"the weights in {folder} could not be read: {error}") from error
    return digest.hexdigest()[:_HEX_DIGITS]


def _pieces(shape: tuple[int, ...], size: int) -> Iterator[tuple[int, int]]:
    """Yield the bytes of a weight that count: the first of each piece, and how many.

    Args:
        shape: of the weight.
        size: its bytes.
    """
    if math.prod(shape) <= _WHOLE or shape[0] <= _ROWS:
        yield 0, size
        return
    width = size // shape[0]
    for index in range(_ROWS):
        yield index * (shape[0] - 1) // (_ROWS - 1) * width, width
