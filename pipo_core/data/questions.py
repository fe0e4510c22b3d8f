"""The text of a question as a key: the same however it is spaced, and a stable place in [0, 1) for splits and shards.

A split by place is stable: the side of a question depends on its own text alone, so neither other questions nor the
order of a file moves it, and no question is on both sides, in whatever build.
"""

import hashlib
import unicodedata

SPLIT, VALIDATION, SHARD = "split", "validation", "shard"
"""The uses of places. Each has places of its own, so that a split by one says nothing of a split by another."""


def normalised(question: str) -> str:
    """Return a question in Unicode's form NFKC, in lower case, with one blank for each run of white space."""
    return " ".join(unicodedata.normalize("NFKC", question).lower().split())


def place_of(question: str, use: str) -> float:
    """Return the place of a question, a number in [0, 1), the same on every machine.

    Args:
        question: its text; it is normalised first.
        use: `SPLIT`, `VALIDATION` or `SHARD`.
    """
    # A lone surrogate, which UTF-8 cannot hold, is hashed as its escape.
    text = f"{use}\n{normalised(question)}".encode("utf-8", "backslashreplace")
    # 53 bits: every value is a float of its own, and none is rounded up to 1.
    return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 11) / (1 << 53)


def shard_of(question: str, count: int) -> int:
    """Return the number, below ``count``, of the shard that a question belongs to."""
    return int(place_of(question, SHARD) * count)
