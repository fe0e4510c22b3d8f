"""How much of a text is a loop.

The measure follows Gopher's filter of repetitions (Rae et al., "Scaling Language Models", arXiv 2112.11446, Table A1):
the share of a text's characters that stand in passages which occur again, overlaps counted once. Gopher takes passages
of 10 words, drops web pages above 0.10 and counts from the second occurrence. Here a passage has 64 characters, which
is about as much, because a loop need not have blanks; and it counts from the fourth occurrence on, because an honest
answer often states an equation or a program twice: in its thought and in its answer.
"""

import numpy as np
from numpy.typing import NDArray

PASSAGE = 64
"""Characters of a passage; a power of two."""

OCCURRENCES = 4
"""A passage that occurs less often is no loop."""

_MULTIPLIERS = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x27D4EB2F165667C5,
    0xD6E8FEB86659FD93,
    0xFF51AFD7ED558CCD,
)
"""Odd constants of well-known hash functions (xxHash, MurmurHash), one for each doubling of the passage."""


def repetition(text: str) -> float:
    """Return the share of a text's characters that stand in a passage which occurs `OCCURRENCES` times or more.

    It is 0 for texts shorter than a passage. The time grows as n log n.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if codes.size < PASSAGE:
        return 0.0
    hashes = _hashes(codes)
    ordered = np.sort(hashes)
    # The first and the last of OCCURRENCES equal neighbours; most texts have none and end here.
    frequent = ordered[OCCURRENCES - 1 :][ordered[OCCURRENCES - 1 :] == ordered[: ordered.size - OCCURRENCES + 1]]
    if not frequent.size:
        return 0.0
    often = np.isin(hashes, frequent)  # by the passage's first character
    # A character is covered if one of the last PASSAGE passages that began up to it occurs often.
    starts = np.concatenate([[0], np.cumsum(often)])
    places = np.arange(codes.size)
    covered = starts[np.minimum(places + 1, often.size)] > starts[np.maximum(places - PASSAGE + 1, 0)]
    return float(covered.mean())


def _hashes(codes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a hash of each passage: those of twice the length are made of two neighbours."""
    hashes = codes.astype(np.uint64) + np.uint64(1)
    length = 1
    for multiplier in _MULTIPLIERS:
        hashes = hashes[:-length] * np.uint64(multiplier) + hashes[length:]
        hashes ^= hashes >> np.uint64(29)
        length *= 2
    return hashes
