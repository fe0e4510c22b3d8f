"""Measures how fast this CPU reads memory, which limits a decode step."""

import time

import torch

_BYTES = 1 << 30
_REPEATS = 5


def read_bandwidth() -> float:
    """Return the bytes per second at which torch's threads read a buffer larger than any cache, at best."""
    buffer = torch.ones(_BYTES // 4)
    buffer.sum()
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        buffer.sum()
        best = min(best, time.perf_counter() - began)
    return _BYTES / best
