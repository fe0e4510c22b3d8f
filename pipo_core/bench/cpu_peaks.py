"""Measures how fast this CPU reads memory and multiplies: the peaks that `DEVICES` has of GPUs."""

import time
from collections.abc import Callable
from functools import partial

import torch

from pipo_core.bench.roofline import Device

_BYTES = 1 << 30
_WIDTH = 1024
_REPEATS = 5


def measure_cpu() -> Device:
    """Return this CPU as torch's threads can use it."""
    return Device("this CPU, bandwidth and arithmetic as measured", read_bandwidth(), multiply_rate())


def read_bandwidth() -> float:
    """Return the bytes per second at which a buffer larger than any cache is read, at best."""
    buffer = torch.ones(_BYTES // 4)
    return _BYTES / _quickest(buffer.sum)


def multiply_rate() -> float:
    """Return the operations per second of a product of two large matrices, at best, in the faster of fp32 and bf16.

    A model in one of them may be multiplied in the other, so the limit is that of both.
    """
    matrices = [torch.ones(_WIDTH, _WIDTH, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    return 2 * _WIDTH**3 / min(_quickest(partial(torch.matmul, matrix, matrix)) for matrix in matrices)


def _quickest(work: Callable[[], object]) -> float:
    """Return the fewest seconds that work took, after a run that is not counted."""
    work()
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
