"""The cost of sequences, which of them fit, that no more memory is taken, and absent devices."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipo_core.decode.cache import SequenceCache
from pipo_core.engine import CapacityError, open_engine
from pipo_core.engine.memory import GIB, MemoryPlan, SequenceCost, plan_memory, sequence_cost
from pipo_core.engine.torch_opening import find_device
from pipo_core.errors import MachineError
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import Decoding
from tests.engine.asking import by_step, greedy, last, run


def bytes_of(cache: SequenceCache) -> int:
    return sum(buffer.nbytes for layer in cache.layers for buffer in layer.buffers)


@pytest.mark.parametrize("with_mtp", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_costs_are_those_of_the_caches(reference: Any, with_mtp: bool, dtype: torch.dtype) -> None:
    config = reference.config
    cost = sequence_cost(config, dtype, with_mtp=with_mtp)
    options: dict[str, Any] = {"max_sequences": 3, "dtype": dtype, "device": torch.device("cpu")}
    sizes = []
    for capacity in (40, 140):
        caches = [SequenceCache(config, capacity=capacity, **options)]
        caches += [SequenceCache(reference.mtp.config, capacity=capacity, **options)] if with_mtp else []
        sizes.append(sum(bytes_of(cache) for cache in caches))
        largest = max(buffer.nbytes for cache in caches for layer in cache.layers for buffer in layer.buffers[:1])
        assert sizes[-1] <= cost.of(3, capacity) <= sizes[-1] + largest + 3 * 45 * config.vocab_size
    buffers = 2 * (config.layer_types.count("full_attention") + with_mtp)
    assert cost.of(3, 140) - cost.of(3, 40) == (sizes[1] - sizes[0]) * (buffers + 1) / buffers


def plan(config: Any, **changes: Any) -> MemoryPlan:
    options = {"with_mtp": True, "free": GIB, "batch": 4, "chunk": 64}
    return plan_memory(config, torch.float32, **{**options, **changes})


def test_a_batch_that_cannot_fit_is_refused_with_one_that_can(reference: Any) -> None:
    with pytest.raises(MachineError, match=r"5000 does not fit 0.05 GiB: one sequence of only 256") as refused:
        plan(reference.config, batch=5000, memory_gib=0.05)
    assert refused.value.hint is not None
    rows = int(refused.value.hint.removeprefix("engine.batch="))
    plan(reference.config, batch=rows, memory_gib=0.05)
    with pytest.raises(MachineError):
        plan(reference.config, batch=rows + 1, memory_gib=0.05)


def test_a_length_that_cannot_fit_is_refused_with_one_that_can(reference: Any) -> None:
    with pytest.raises(MachineError, match=r"engine.max_length = 1000000 tokens do not fit") as refused:
        plan(reference.config, max_length=10**6, memory_gib=0.05)
    assert refused.value.hint is not None
    plan(reference.config, max_length=int(refused.value.hint.removeprefix("engine.max_length=")), memory_gib=0.05)


def test_more_memory_than_is_free_and_pieces_that_are_too_large_are_refused(reference: Any) -> None:
    with pytest.raises(MachineError, match=r"memory_gib is 2, but only 1.00 GiB are free"):
        plan(reference.config, memory_gib=2)
    with pytest.raises(MachineError) as refused:
        plan(reference.config, chunk=10**7)
    assert "prefill_chunk" in str(refused.value.hint)


@pytest.mark.parametrize("method", ["regular", "pipo"])
def test_sequences_wait_for_memory_and_no_more_is_ever_taken(
    engine: Any, random_model: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [greedy(n, length=4 + 17 * n % 60, max_tokens=6 + 11 * n % 20) for n in range(9)]
    requests += [replace(requests[-1], id=f"{n} of the same prompt") for n in range(3)]
    requests.append(greedy(20, length=150, max_tokens=10))
    alone = run(engine(method, batch=1), requests)

    caches: weakref.WeakSet[SequenceCache] = weakref.WeakSet()
    taken: list[int] = []
    opened, move = SequenceCache.__init__, SequenceCache._move

    def open_and_remember(self: SequenceCache, *args: Any, **options: Any) -> None:
        opened(self, *args, **options)
        caches.add(self)
        taken.append(sum(bytes_of(cache) for cache in caches))

    def move_and_remember(self: SequenceCache, max_sequences: int, capacity: int) -> None:
        move(self, max_sequences, capacity)
        taken.append(sum(bytes_of(cache) for cache in caches))

    monkeypatch.setattr(SequenceCache, "__init__", open_and_remember)
    monkeypatch.setattr(SequenceCache, "_move", move_and_remember)
    cost = sequence_cost(random_model.config, torch.float32, with_mtp=method == "pipo")
    width = 2 if method == "pipo" else 1
    budget = 2 * cost.of(1, 150 // width + 10) + cost.fixed  # the longest just fits
    stepped = engine(method, batch=8, prefill_chunk=16, memory=MemoryPlan(cost, budget))
    for request in requests:
        stepped.add(request)
    most = 0
    deltas: dict[str, list[Any]] = {request.id: [] for request in requests}
    while stepped.has_work:
        for delta in stepped.step():
            deltas[delta.id].append(delta)
        most = max(most, stepped.stats().running)
    assert 1 < most < 8  # some ran together, the others had to wait
    assert taken
    assert max(taken) <= budget
    for name, parts in deltas.items():
        assert last(parts).token_ids == alone[name].token_ids


def test_what_can_never_fit_is_refused_at_once(engine: Any) -> None:
    stepped = engine("regular", memory=MemoryPlan(SequenceCost(fixed=1000, position=10), 5000))
    assert stepped.max_length == 150  # two copies of 1000 + 150 · 10 bytes
    stepped.add(greedy(1, length=100, max_tokens=50))
    with pytest.raises(CapacityError, match="together they may have 150"):
        stepped.add(greedy(2, length=149, max_tokens=52))
    by_step(stepped)


def test_buffers_shrink_when_sequences_have_left(engine: Any) -> None:
    stepped = engine("pipo", batch=8)
    for n in range(8):
        stepped.add(greedy(n, max_tokens=200 if n == 3 else 8))
    stepped.step()
    before = bytes_of(stepped._state.cache)
    while stepped.stats().running > 1:
        stepped.step()
    assert bytes_of(stepped._state.cache) < before / 3
    stepped.cancel("3")
    assert stepped._state is None


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:", "meta", ""])
def test_devices_of_unknown_kinds_are_refused(name: str) -> None:
    with pytest.raises(MachineError, match="there is no device"):
        find_device(name)


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:7"):
        with pytest.raises(MachineError, match=f"device {name} was asked for, but PyTorch sees no GPU"):
            find_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(MachineError, match="cuda:7 was asked for, but PyTorch sees cuda:0 to cuda:1"):
        find_device("cuda:7")


def test_opening_plans_the_memory_and_the_length() -> None:
    tiny = Path(__file__).parents[2] / "pipo_core" / "bundled" / "tiny-student"
    opened = open_engine(tiny, Decoding("regular"), TorchSettings(batch=2, max_length=500))
    assert opened.max_length == 500
    assert open_engine(tiny, Decoding("regular"), TorchSettings(batch=2)).max_length == 4096
    with pytest.raises(MachineError, match=r"a batch of 4000 does not fit 0.50 GiB"):
        open_engine(tiny, Decoding("regular"), TorchSettings(batch=4000, memory_gib=0.5))
