"""The recorded pair phase writes the slots of the eager one; `tests/recorder.py` stands in for CUDA graphs.

The network is a small one with the pair model's interface: its one attention layer reads and writes a cache by SGLang's
locations, and a padded batch reaches it as SGLang's runner pads it.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("sglang")

from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.model_executor.runner_backend.breakable_cuda_graph_backend import BreakableCudaGraphBackend
from sglang.srt.model_executor.runner_backend.full_cuda_graph_backend import FullCudaGraphBackend

from pipo_core.errors import UsageError
from pipo_core.sglang import served as served_module
from pipo_core.sglang.hooks.sampling import record_pair_phase
from pipo_core.sglang.pair_graph import PairGraph
from pipo_core.sglang.pair_ids import PairIds
from pipo_core.sglang.rows import Rows
from pipo_core.sglang.served import Served
from pipo_core.sglang.slot_sampling import SlotSampler
from tests.recorder import CpuRecorder

VOCABULARY, HIDDEN, POSITIONS = 23, 8, 16
SIZES = (1, 2, 4, 6)
IDS = PairIds(VOCABULARY)
# Requests by number: they join, leave, come back in another order, and batches need between 0 and 2 rows of padding.
BATCHES = ((0,), (0, 1, 2), (2, 0, 1, 3, 4), (4, 2), (4, 2, 5), (5,), (3, 5, 1, 0, 2, 4), (1, 3, 0), (1, 0))


class Network(torch.nn.Module):
    """What `SlotSampler` and `PairGraph` ask of the pair model."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(VOCABULARY, HIDDEN, generator=generator)
        self.gate = torch.randn(2 * HIDDEN, generator=generator)
        # Location 0 is the padding's, as in SGLang's pools.
        self.cache = torch.zeros(1 + (1 + max(map(max, BATCHES))) * POSITIONS, HIDDEN)
        self.recorded_hidden = torch.zeros(max(SIZES), HIDDEN)
        self.hidden = torch.full((max(SIZES), HIDDEN), torch.nan)  # where no step of these tests left one
        self.recorded_batch: Any = None

    @torch.no_grad()
    def draft(self, token: torch.Tensor, batch: Any, *, recorded: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = (self.recorded_hidden if recorded else self.hidden)[: len(token)]
        metadata = get_attn_backend().full_attn_backend.metadata
        key = self.table[token] + hidden + batch.positions[:, None] / POSITIONS
        self.cache.index_put_((batch.out_cache_loc,), key)
        keys = self.cache[metadata.locations]
        scores = (keys * key[:, None]).sum(-1)
        past = torch.arange(POSITIONS) < metadata.lengths[:, None]
        weights = scores.masked_fill(~past, -torch.inf).softmax(-1)
        return (weights[:, :, None] * keys).sum(1) + key.flip(-1), hidden

    def confidence_head(self, hidden: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((torch.cat([hidden, drafted], dim=-1) * self.gate).sum(-1))

    def project(self, drafted: torch.Tensor, _: Any) -> torch.Tensor:
        return (drafted[:, None] * self.table).sum(-1)


class CpuGraphs(FullCudaGraphBackend):
    """SGLang's backend of full CUDA graphs, with the stand-in in their place."""

    def __init__(self) -> None:
        self.recorder = CpuRecorder()
        self.recorded: dict[Any, Any] = {}

    def capture_one(self, shape_key: Any, forward_fn: Callable[[], Any], *_: Any, **__: Any) -> None:
        self.recorded[shape_key] = self.recorder(forward_fn)

    def replay(self, shape_key: Any, static_forward_batch: Any, **_: Any) -> None:
        self.recorded[shape_key].replay()


class Attention:
    """A backend whose metadata are each sequence's cache locations and length."""

    def __init__(self, locations: torch.Tensor) -> None:
        self.full_attn_backend = self
        self.request_locations = locations
        self.metadata: Any = None
        self.plans = 0

    def init_forward_metadata(self, batch: Any) -> None:
        self.plans += 1
        self.metadata = SimpleNamespace(
            locations=self.request_locations[batch.req_pool_indices], lengths=batch.seq_lens.clone()
        )


class World:
    """A server of the network, whose backbone's steps are replayed; the pair phase is recorded or eager."""

    def __init__(self, *, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(served_module, "_served", Served(IDS, 0, 0.5, recorded))
        self.network = Network()
        requests = 1 + max(map(max, BATCHES))
        self.locations = torch.arange(1, 1 + requests * POSITIONS).view(requests, POSITIONS)
        self.attention = Attention(self.locations)
        self.runner: Any = SimpleNamespace(attn_backend=self.attention, model=self.network, device="cpu")
        self.runner.pipo = self.sampler = SlotSampler(self.runner, Served(IDS, 0, 0.5, recorded))
        rows = max(SIZES)
        self.static = SimpleNamespace(
            positions=torch.zeros(rows, dtype=torch.long),
            out_cache_loc=torch.zeros(rows, dtype=torch.long),
            locations=torch.zeros(rows, POSITIONS, dtype=torch.long),
            lengths=torch.ones(rows, dtype=torch.long),
        )
        self.backend = CpuGraphs()
        self.graphs = SimpleNamespace(
            **{"backend": self.backend, "enable_pdmux": False, "max_bs": rows, "bs": 0},
            **{"attn_backend": self.attention, "model_runner": self.runner},
        )
        for size in reversed(SIZES):  # as SGLang goes through them
            static = self.static
            self.network.recorded_batch = self._forward_batch(static.positions[:size], static.out_cache_loc[:size])
            self.attention.metadata = SimpleNamespace(locations=static.locations[:size], lengths=static.lengths[:size])
            record_pair_phase(None, self.graphs, size, lambda: None)
        self.attention.metadata = None
        self.lengths = [0] * requests
        self.slots = [1 + request for request in range(requests)]

    def _forward_batch(self, positions: torch.Tensor, out_cache_loc: torch.Tensor, **more: Any) -> Any:
        return SimpleNamespace(
            forward_mode=ForwardMode.DECODE,
            moe_num_token_non_padded=lambda: None,
            sampling_info=SimpleNamespace(sampling_seed=None),
            return_logprob=False,
            positions=positions,
            out_cache_loc=out_cache_loc,
            **more,
        )

    def step(self, requests: Sequence[int]) -> tuple[list[int], Any]:
        """Return a batch's slots and the record of its drafts."""
        chosen = torch.tensor(requests)
        for request in requests:
            self.lengths[request] += 1
        lengths = torch.tensor([self.lengths[request] for request in requests])
        last = torch.tensor([self.slots[request] for request in requests])
        batch = self._forward_batch(
            lengths - 1, self.locations[chosen, lengths - 1], req_pool_indices=chosen, seq_lens=lengths
        )
        count, static = len(requests), self.static
        self.graphs.bs = next(size for size in SIZES if size >= count)
        for name, live, padding in (
            *(("positions", batch.positions, 0), ("out_cache_loc", batch.out_cache_loc, 0)),
            *(("locations", self.locations[chosen], 0), ("lengths", lengths, 1)),
        ):
            getattr(static, name)[:count] = live
            getattr(static, name)[count:] = padding
        hidden = self.network.table[last % VOCABULARY] + self.network.table[last // VOCABULARY % VOCABULARY].roll(1, -1)
        self.network.recorded_hidden[:count] = hidden + lengths[:, None] / POSITIONS
        tau = torch.tensor([0.3 + 0.1 * request for request in requests])
        may_keep = torch.tensor([request != 3 for request in requests])
        batch.pipo = Rows(list(requests), tau, may_keep, None, records=True, replayed=True)
        output = LogitsProcessorOutput(next_token_logits=self.network.project(self.network.recorded_hidden[:count], 0))
        slots = self.sampler.sample(_greedy, output, batch).tolist()
        for request, slot in zip(requests, slots, strict=True):
            self.slots[request] = slot
        return slots, output.auxiliary_device_output

    def buffers(self) -> dict[str, int]:
        """Return where the recordings' own buffers lie."""
        graph = self.sampler._pair_graph
        return {name: one.data_ptr() for name, one in vars(graph).items() if isinstance(one, torch.Tensor)}


def _greedy(_: Any, output: Any, __: Any) -> torch.Tensor:
    found: torch.Tensor = output.next_token_logits.argmax(-1)
    return found


def test_the_recorded_phase_writes_the_slots_of_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = World(recorded=False, monkeypatch=monkeypatch)
    recorded = World(recorded=True, monkeypatch=monkeypatch)
    buffers, steps = recorded.buffers(), []
    assert len(buffers) == 3
    for requests in BATCHES:
        (expected, _), (slots, _) = found = eager.step(requests), recorded.step(requests)
        assert slots == expected, requests
        steps.append(found)
    counts = {IDS.count(slot) for (slots, _), _ in steps for slot in slots}
    assert counts == {1, 2}  # drafts were kept and rejected
    # Records stay as they were, however many replays follow.
    for (_, one), (_, other) in steps:
        assert torch.equal(one.draft, other.draft)
        torch.testing.assert_close(one.confidence, other.confidence)
    # Padded rows wrote to the padding's location only.
    torch.testing.assert_close(eager.network.cache[1:], recorded.network.cache[1:])
    assert recorded.network.cache[0].any()
    assert recorded.buffers() == buffers
    assert (recorded.backend.recorder.recordings, recorded.backend.recorder.replays) == (len(SIZES), len(BATCHES))
    # The metadata are the replayed batch's own; the eager phase makes new ones.
    assert (recorded.attention.plans, eager.attention.plans) == (0, len(BATCHES))


def test_nothing_is_recorded_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(recorded=False, monkeypatch=monkeypatch)
    assert not world.backend.recorded
    assert world.sampler._pair_graph is None


def test_steps_that_are_not_replayed_stay_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch larger than any recording runs without one, and so does its pair phase."""
    world = World(recorded=True, monkeypatch=monkeypatch)
    chosen = torch.tensor([0])
    world.attention.metadata = SimpleNamespace(locations=world.locations[chosen], lengths=torch.tensor([1]))
    batch = world._forward_batch(torch.tensor([0]), world.locations[chosen, 0])
    batch.pipo = Rows([0], torch.tensor([0.0]), torch.tensor([True]), None, records=True, replayed=False)
    world.network.hidden = torch.ones(1, HIDDEN)
    drafted, confidence = world.sampler._pair_phase(torch.tensor([5]), batch)
    assert world.backend.recorder.replays == 0
    torch.testing.assert_close(confidence, world.network.confidence_head(torch.ones(1, HIDDEN), drafted))


@pytest.mark.parametrize(("backend", "multiplexed"), [(BreakableCudaGraphBackend, False), (FullCudaGraphBackend, True)])
def test_other_graphs_than_whole_ones_are_refused(backend: type, multiplexed: bool) -> None:
    graphs = SimpleNamespace(backend=object.__new__(backend), enable_pdmux=multiplexed)
    with pytest.raises(UsageError, match="PIPO_PAIR_GRAPH=1 needs decode steps in full CUDA graphs"):
        PairGraph(graphs, None)
