"""Steps that are replayed from recordings, as on a GPU, against plain ones: the same texts, whoever comes and goes."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.decode.cache import FEW_SEQUENCES
from pipo_core.decode.graphs import Graphs
from pipo_core.decode.method import Method
from pipo_core.decode.registry import open_method
from pipo_core.engine.memory import MemoryPlan, sequence_cost
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.model import Qwen3_5ForCausalPIPO
from tests.engine.asking import ask, run
from tests.recorder import CpuRecorder

VARIANTS = [("regular", None), ("mtp", None), ("eagle", None), ("pipo", 0.5), ("pipo", 1.0)]


def texts(
    method: Method[Any], tokenizer: PreTrainedTokenizerFast, *, batch: int, requests: int
) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Return tokens and slots of requests of several lengths; some come late, one is cancelled."""
    engine = TorchEngine(method, tokenizer, batch=batch, prefill_chunk=24)
    wanted = [ask(number, 3 + 5 * number % 17, max_tokens=9 + 7 * number % 30) for number in range(requests)]
    found: dict[str, tuple[tuple[int, ...], int | None]] = {}
    for request in wanted[: requests // 2]:
        engine.add(request)
    late = wanted[requests // 2 :]
    steps = 0
    while engine.has_work or late:
        if late and steps % 5 == 0:
            engine.add(late.pop())
        if steps == 8:
            engine.cancel("0")
        for delta in engine.step():
            done = delta.completion
            if done is not None and done.finish_reason != "cancelled":
                assert done.error is None
                found[done.id] = (tuple(done.token_ids), done.slots)
        steps += 1
    return found


@pytest.mark.parametrize(("name", "tau"), VARIANTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_replayed_steps_write_what_plain_ones_write(
    random_model: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tau: float | None,
    batch: int,
) -> None:
    method = open_method(name, random_model, 0, tau=tau)
    expected = texts(method, tokenizer, batch=batch, requests=6)
    recorder = CpuRecorder()
    with recorder.watching(monkeypatch):
        found = texts(method.recorded(Graphs(recorder), block=16), tokenizer, batch=batch, requests=6)
    assert found == expected
    assert recorder.replays > 2 * recorder.recordings > 0
    assert len({len(tokens) for tokens, _ in found.values()}) > 1


def test_many_sequences_run_plainly(random_model: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast) -> None:
    recorder = CpuRecorder()
    method = open_method("regular", random_model, 0).recorded(Graphs(recorder), block=16)
    engine = TorchEngine(method, tokenizer, batch=FEW_SEQUENCES + 1)
    for number in range(FEW_SEQUENCES + 1):
        engine.add(ask(number))
    for _ in range(5):
        engine.step()
    assert engine.stats().running == FEW_SEQUENCES + 1
    assert recorder.recordings == 0


@torch.inference_mode()
def test_blocks_are_promised_whole(random_model: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast) -> None:
    method = open_method("regular", random_model, 0).recorded(Graphs(CpuRecorder()), block=64)
    engine = TorchEngine(method, tokenizer, batch=2)
    engine.add(ask(1, 9, max_tokens=100))
    engine.step()
    assert engine._state is not None
    cache = engine._state.cache
    assert cache.capacity == 128
    while engine.has_work:
        assert cache.capacity == 128
        engine.step()


@pytest.mark.parametrize(("name", "tau"), VARIANTS)
def test_the_next_request_finds_the_recordings_of_the_last(
    random_model: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tau: float | None,
) -> None:
    method = open_method(name, random_model, 0, tau=tau)
    recorder = CpuRecorder()
    with recorder.watching(monkeypatch):
        engine = TorchEngine(method.recorded(Graphs(recorder), block=64), tokenizer, batch=1)
        plain = TorchEngine(method, tokenizer, batch=1)
        for number in range(3):
            request = ask(number, 30, max_tokens=30)
            assert run(engine, [request])[request.id].token_ids == run(plain, [request])[request.id].token_ids
            if number == 0:
                recordings = recorder.recordings
    assert recorder.recordings == recordings


def test_kept_buffers_make_room_for_what_they_hold_up(
    random_model: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = open_method("regular", random_model, 0)
    cost = sequence_cost(random_model.config, torch.float32, with_mtp=False)
    plan = MemoryPlan(cost, 2 * cost.of(1, 320) + cost.of(1, 64))  # one long sequence, or some short ones
    recorder = CpuRecorder()
    with recorder.watching(monkeypatch):
        recorded = method.recorded(Graphs(recorder), block=64)
        engine = TorchEngine(recorded, tokenizer, batch=4, memory=plan, prefill_chunk=512)
        run(engine, [ask(number, 30, max_tokens=20) for number in range(4)])
        assert engine._state is not None
        assert engine._state.cache.max_sequences > 1
        long = ask(9, 250, max_tokens=50)
        assert run(engine, [long])["9"].token_ids == run(TorchEngine(method, tokenizer, batch=1), [long])["9"].token_ids
