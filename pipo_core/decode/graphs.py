"""Recorded passes: on a GPU, launching a decode step of few sequences takes longer than computing it.

A step of a 4B model is some thousand small kernels of a few microseconds each. A CUDA graph launches them all at once,
provided that every shape and address is the same each time. So caches hold whole blocks of positions
(`SequenceCache.block`), values that change from step to step are in tensors (lengths, tokens), and a pass is recorded
for each number of sequences and set of buffers. The first call runs unrecorded, which also compiles and tunes kernels.
The second call is recorded. All later calls replay the recording until a cache moves to other buffers, once a block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from pipo_core.decode.cache import FEW_SEQUENCES, SequenceCache

BLOCK = 1024
"""Positions of a block: what a sequence reads beyond its own is at most 32 MB in a 4B model, 0.4 % of its weights."""

Pass = Callable[..., Any]
"""From a model, caches and tensors to a tensor or a tuple of tensors. A pass must be recordable: no host
synchronisation, and no Python side effects that a replay would have to repeat."""


class PassRunner(Protocol):
    """How a step runs its passes."""

    def __call__(self, function: Pass, *arguments: Any) -> Any:
        """Return what ``function(*arguments)`` does; its tensors may be overwritten by the next call."""
        ...


def run_plainly(function: Pass, *arguments: Any) -> Any:
    """Run a pass without recording it."""
    return function(*arguments)


class Recorded(NamedTuple):
    """A recorded pass.

    Attributes:
        replay: runs it again on the tensors that it was recorded with.
        outputs: what it returned, overwritten by each replay.
    """

    replay: Callable[[], None]
    outputs: Any


class CudaRecorder:
    """Records passes as CUDA graphs, which share one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Any]) -> Recorded:
        """Record a call without running it."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # others may serve meanwhile
            outputs = function()
        return Recorded(graph.replay, outputs)


class _Entry:
    """The calls and the recording of a pass at one number of sequences."""

    def __init__(self, serials: tuple[int, ...]) -> None:
        self.serials = serials
        self.inputs: list[torch.Tensor] = []
        self.recorded: Recorded | None = None


class Graphs:
    """Runs passes of up to `FEW_SEQUENCES` sequences from recordings, and larger ones unrecorded.

    While the number of sequences grows beyond its maximum so far, each arrival makes new buffers, and passes are
    recorded again.

    Args:
        record: records a call without running it.
    """

    def __init__(self, record: Callable[[Callable[[], Any]], Recorded] | None = None) -> None:
        self._record = record or CudaRecorder()
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def __call__(self, function: Pass, *arguments: Any) -> Any:
        """See `PassRunner`. Arguments that are neither tensors nor caches must be the same at every call."""
        tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        if len(tensors[0]) > FEW_SEQUENCES:
            return function(*arguments)
        serials = tuple(argument.serial for argument in arguments if isinstance(argument, SequenceCache))
        key = (function, *(tensor.shape for tensor in tensors))
        entry = self._entries.get(key)
        if entry is None or entry.serials != serials:
            # Recordings on freed buffers hold memory and cannot be used again, at any number of sequences.
            self._entries = {
                other: known
                for other, known in self._entries.items()
                if other[0] != function or known.serials == serials
            }
            self._entries[key] = _Entry(serials)
            return function(*arguments)
        if entry.recorded is None:
            entry.inputs = [tensor.clone() for tensor in tensors]
            fixed = iter(entry.inputs)
            same = [next(fixed) if isinstance(argument, torch.Tensor) else argument for argument in arguments]
            entry.recorded = self._record(lambda: function(*same))
        else:
            for held, tensor in zip(entry.inputs, tensors, strict=True):
                held.copy_(tensor)
        entry.recorded.replay()
        return entry.recorded.outputs
