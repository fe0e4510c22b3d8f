"""The stepped engine: who else is there, when they came and what became of them changes no text."""

import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipo_core.chat import Detokenizer
from pipo_core.decode.prefill import PromptReader
from pipo_core.engine import CapacityError, Completion, Request
from pipo_core.errors import UsageError
from tests.engine.asking import ask, assert_idle, by_step, counts, greedy, last, run

METHODS = ["regular", "pipo"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_arrivals_and_cancels_change_no_text(engine: Any, method: str, seed: int) -> None:
    rng = random.Random(seed)
    requests = [greedy(n, rng.choice([1, 2, 5, 9, 14, 30, 31]), max_tokens=rng.randint(1, 12)) for n in range(10)]
    alone = run(engine(method, batch=1), requests)
    cancelled = set(rng.sample(sorted(alone), 4))
    together = engine(method, batch=3, prefill_chunk=rng.choice([4, 7, 12]))
    deltas: dict[str, list[Any]] = {request.id: [] for request in requests}
    coming = list(requests)
    while coming or together.has_work:
        while coming and rng.random() < 0.4:
            together.add(coming.pop(0))
        if rng.random() < 0.2:
            together.cancel(rng.choice(sorted(cancelled)))  # waiting, read, running, ended, or not there yet
        for delta in together.step():
            deltas[delta.id].append(delta)
    assert_idle(together)
    for name, parts in deltas.items():
        completion = last(parts)
        if completion.finish_reason == "cancelled":
            assert name in cancelled
            assert completion.token_ids == alone[name].token_ids[: len(completion.token_ids)]
        else:
            assert completion.token_ids == alone[name].token_ids
            assert completion.text == alone[name].text
            assert completion.finish_reason == alone[name].finish_reason


def test_running_sequences_step_between_the_pieces_of_a_long_prompt(engine: Any) -> None:
    stepped = engine("pipo", tau=0.0, batch=4, prefill_chunk=8)
    stepped.add(greedy(1, max_tokens=60))
    stepped.step()
    stepped.add(greedy(2, length=100, max_tokens=4))  # 50 slots: seven pieces
    stepped.add(greedy(3, max_tokens=4))
    seen: list[set[str]] = []
    while not any("2" in step for step in seen):
        seen.append({delta.id for delta in stepped.step()})
    assert sum("1" in step for step in seen) >= 6
    assert all("1" in one | other for one, other in pairwise(seen))  # never two pieces in a row
    assert any("3" in step for step in seen[:6])  # a short request does not wait for the long one
    by_step(stepped)


@pytest.mark.parametrize("method", METHODS)
def test_a_cancelled_sequence_is_free_at_once(engine: Any, method: str) -> None:
    stepped = engine(method, batch=2)
    for number in range(3):
        stepped.add(greedy(number))
    for _ in range(3):
        stepped.step()
    cache = stepped._state.cache
    assert (stepped.stats().free, cache.count) == (0, 2)
    stepped.cancel("0")
    assert (stepped.stats().free, cache.count) == (1, 1)
    deltas = stepped.step()
    assert [delta.completion.finish_reason for delta in deltas if delta.id == "0"] == ["cancelled"]
    rest = by_step(stepped)
    assert set(rest) == {"1", "2"}
    stepped.cancel("0")  # ended: nothing happens
    stepped.cancel("never there")
    assert_idle(stepped)


def test_a_cancelled_prompt_is_read_no_further(engine: Any) -> None:
    stepped = engine("regular", prefill_chunk=4)
    stepped.add(greedy(1, length=40))
    stepped.step()
    assert stepped.stats().running == 1
    stepped.cancel("1")
    assert [delta.completion.finish_reason for delta in stepped.step()] == ["cancelled"]
    assert_idle(stepped)


def test_requests_that_cannot_be_taken_are_refused_by_add(engine: Any) -> None:
    stepped = engine("regular", max_length=50)
    stepped.add(greedy(1, length=30, max_tokens=20))
    with pytest.raises(UsageError, match="request 1 is running or waiting already"):
        stepped.add(greedy(1))
    with pytest.raises(UsageError, match="outside the vocabulary"):
        stepped.add(ask(2, prompt_ids=(-1,)))
    with pytest.raises(CapacityError, match=r"request 2: a prompt of 31 tokens .* can never fit; together .* 50"):
        stepped.add(greedy(2, length=31, max_tokens=20))
    assert set(by_step(stepped)) == {"1"}
    stepped.add(greedy(1))  # its id is free again
    by_step(stepped)


def _completions(engine: Any, requests: list[Request]) -> dict[str, Completion]:
    for request in requests:
        engine.add(request)
    return {name: last(deltas) for name, deltas in by_step(engine).items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [9, 40])
def test_a_prompt_that_fails_fails_alone(
    engine: Any, monkeypatch: pytest.MonkeyPatch, method: str, length: int
) -> None:
    bad = 2  # in no other prompt
    requests = [greedy(n, max_tokens=5) for n in range(4)]
    requests.insert(2, greedy(9, prompt_ids=(5,) * (length - 1) + (bad,)))
    good = run(engine(method), [request for request in requests if request.id != "9"])
    advance = PromptReader.advance

    def explode(self: PromptReader) -> None:
        advance(self)
        if self.done and (self._ids == bad).any():
            raise RuntimeError("this prompt is poison")

    monkeypatch.setattr(PromptReader, "advance", explode)
    stepped = engine(method, prefill_chunk=16)
    written = _completions(stepped, requests)
    assert (written["9"].finish_reason, written["9"].error) == ("error", "this prompt is poison")
    for name, completion in good.items():
        assert written[name].token_ids == completion.token_ids


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_end_their_sequence_alone(
    engine: Any, random_model: Any, method: str, number: float
) -> None:
    requests = [ask(n, max_tokens=8) for n in range(3)]
    good = run(engine(method, tau=0.0), requests)
    calls: list[int] = []

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> None:
        calls.append(len(output))
        if len(calls) == 4:  # the fourth token, or the second slot's draft
            output[1, 7] = number

    handle = random_model.lm_head.register_forward_hook(spoil)
    written = _completions(engine(method, tau=0.0), requests)
    handle.remove()
    assert (written["1"].finish_reason, written["1"].error) == ("error", "the model's scores are not finite")
    assert len(written["1"].token_ids) == (3 if method == "regular" else 2)  # what its first steps wrote
    for name in ("0", "2"):
        assert written[name].token_ids == good[name].token_ids


def test_text_that_cannot_be_decoded_fails_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run(engine("regular"), [greedy(n) for n in (0, 2)])
    add = Detokenizer.add

    def explode(self: Detokenizer, token: int) -> str:
        if "poison" in self._stop and len(self._window) == 3:
            raise ValueError("no such character")
        return add(self, token)

    monkeypatch.setattr(Detokenizer, "add", explode)
    written = _completions(engine("regular"), [greedy(0), greedy(1, stop=("poison",)), greedy(2)])
    assert (written["1"].finish_reason, written["1"].error) == ("error", "no such character")
    for name, completion in good.items():
        assert written[name].token_ids == completion.token_ids


def test_a_step_that_fails_ends_the_running_requests_and_no_others(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = engine("pipo", batch=2)
    good = run(stepped, [greedy(2), greedy(3)])
    step, calls = stepped._method.step, []

    def explode_once(state: Any) -> Any:
        calls.append(state)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return step(state)

    monkeypatch.setattr(type(stepped._method), "step", lambda _, state: explode_once(state))
    written = _completions(stepped, [greedy(n) for n in range(4)])
    assert {name: completion.finish_reason for name, completion in written.items()} == {
        "0": "error",
        "1": "error",
        "2": "length",
        "3": "length",
    }
    assert written["0"].error == "out of memory"
    assert len(written["0"].token_ids) >= 3  # what was written before is kept
    for name, completion in good.items():
        assert written[name].token_ids == completion.token_ids


def test_generate_raises_what_hits_all_sequences_and_leaves_the_engine_usable(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = engine("regular")
    with monkeypatch.context() as patch:
        patch.setattr(type(stepped._method), "step", lambda _, state: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(stepped.generate([greedy(1), greedy(2)]))
    assert_idle(stepped)
    left = stepped.generate([greedy(1), greedy(2, max_tokens=2), greedy(3)])
    assert next(left).id == "2"
    left.close()
    assert_idle(stepped)
    assert set(run(stepped, [greedy(1)])) == {"1"}


def test_statistics_count_what_was_written(engine: Any) -> None:
    stepped = engine("pipo", tau=0.5)
    written = _completions(stepped, [ask(n, max_tokens=30) for n in range(6)])
    stats = stepped.stats()
    figures = [counts(completion) for completion in written.values()]
    assert stats.tokens == sum(sum(answer.per_step) for answer in figures)
    assert stats.drafts == sum(answer.drafts for answer in figures)
    assert 0 < stats.kept == sum(answer.kept for answer in figures) < stats.drafts
    assert (stats.free, stats.waiting) == (4, 0)
    assert stats.steps > 15
