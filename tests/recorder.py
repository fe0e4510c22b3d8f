"""What a CUDA graph does, on a CPU: the operations of a call, kept with the tensors that they ran on, and run again.

A replay runs no Python of the pass. So whatever the pass reads anew at each call (lengths known to Python, buffers
that moved) is as stale in a replay here as it is in a graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from pipo_core.decode.cache import GatedDeltaStates, SequenceCache
from pipo_core.decode.graphs import Recorded

_ASKING = {
    torch.ops.aten.item.default,  # a number, as by `int` or `bool`
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,  # a shape, also by a mask as an index
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.lift_fresh.default,  # numbers of Python, copied to the device
}
"""What a graph cannot hold: the device is asked for something, or told something that Python knows."""


class _Listener(TorchDispatchMode):
    """Keeps every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in _ASKING, f"{function} in a recorded pass"
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result


class CpuRecorder:
    """Records as `CudaRecorder` does.

    Attributes:
        caches: those in use, see `watching`. Recording here runs the call, so their states are put back afterwards.
        recordings: how many there were, as of `replays`.
    """

    def __init__(self) -> None:
        self.caches: list[SequenceCache] = []
        self.recordings = self.replays = 0
        self._outputs: list[list[torch.Tensor]] = []

    @contextmanager
    def watching(self, monkeypatch: Any) -> Iterator[None]:
        """Know every cache that is made in here."""
        made = SequenceCache.__init__

        def make(cache: SequenceCache, *arguments: Any, **options: Any) -> None:
            made(cache, *arguments, **options)
            self.caches.append(cache)

        with monkeypatch.context() as patch:
            patch.setattr(SequenceCache, "__init__", make)
            yield

    def __call__(self, function: Callable[[], Any]) -> Recorded:
        states = [
            buffer
            for cache in self.caches
            for layer in cache.layers
            if isinstance(layer, GatedDeltaStates)
            for buffer in layer.buffers
        ]
        before = [state.clone() for state in states]
        with _Listener() as listener:
            outputs = function()
        for state, old in zip(states, before, strict=True):
            state.copy_(old)
        self.recordings += 1
        kept = [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, torch.Tensor)]
        self._outputs.append(kept)

        def replay() -> None:
            self.replays += 1
            for others in self._outputs:
                if others is not kept:
                    for tensor in others:  # which nobody may still need
                        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
            now: dict[int, torch.Tensor] = {}

            def renew(leaf: Any) -> Any:
                return now.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

            for call, args, kwargs, result in listener.calls:
                fresh = call(*tree_map(renew, args), **tree_map(renew, kwargs))
                for old, new in zip(tree_flatten(result)[0], tree_flatten(fresh)[0], strict=True):
                    if isinstance(old, torch.Tensor):
                        now[id(old)] = new
            for tensor in kept:
                tensor.copy_(renew(tensor).clone())

        return Recorded(replay, outputs)
