"""How fast this CPU reads memory, measured: the limit that a decode step runs against."""

import time

import torch

_BYTES = 1 << 30
_REPEATS = 5


def read_bandwidth() -> float:
    """Return bytes a second at which torch's threads read a buffer larger than any cache: the best of some tries."""
    buffer = torch.ones(_BYTES // 4)
    buffer.sum()
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        buffer.sum()
        best = min(best, time.perf_counter() - began)
    return _BYTES / best
