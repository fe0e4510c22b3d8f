"""Requests of all sorts, and the texts that they get one at a time."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Delta, Request
from pipo_core.engine.torch_engine import TorchEngine


def ask(number: int, length: int = 9, **changes: Any) -> Request:
    """Return a sampled request whose prompt and seed depend on its number."""
    sampling = SamplingParams(temperature=1.0, top_k=20, presence_penalty=0.5, seed=number)
    prompt = tuple((7 * number + 13 * place) % 380 + 3 for place in range(length))
    return replace(Request(str(number), prompt, sampling, max_tokens=20, stop_ids=frozenset()), **changes)


def greedy(number: int, length: int = 9, **changes: Any) -> Request:
    """Return a greedy request."""
    return ask(number, length, sampling=SamplingParams(temperature=0.0), **changes)


class Counts(NamedTuple):
    """What a torch engine counts of every answer, see `Completion`."""

    slots: int
    drafts: int
    kept: int
    per_step: list[int]


def counts(completion: Completion) -> Counts:
    """Return the counts of a completion and check that all of them are there."""
    slots, drafts, kept = completion.slots, completion.drafts, completion.kept
    assert slots is not None
    assert drafts is not None
    assert kept is not None
    assert completion.slot_token_counts is not None
    return Counts(slots, drafts, kept, completion.slot_token_counts)


def run(engine: TorchEngine, requests: Iterable[Request]) -> dict[str, Completion]:
    return {completion.id: completion for completion in engine.generate(requests)}


def by_step(engine: TorchEngine) -> dict[str, list[Delta]]:
    """Step until nothing is left; return each request's deltas."""
    deltas: dict[str, list[Delta]] = {}
    while engine.has_work:
        for delta in engine.step():
            deltas.setdefault(delta.id, []).append(delta)
    assert_idle(engine)
    return deltas


def last(deltas: list[Delta]) -> Completion:
    """Return the completion, which only the last delta has, and check that the deltas add up to it."""
    assert all(delta.completion is None for delta in deltas[:-1])
    completion = deltas[-1].completion
    assert completion is not None
    assert "".join(delta.text for delta in deltas) == completion.text
    tokens = [token for delta in deltas for token in delta.tokens]
    assert [token.token_id for token in tokens if token.kind != "rejected"] == completion.token_ids
    figures = counts(completion)
    assert sum(token.kind == "rejected" for token in tokens) <= figures.drafts - figures.kept
    return completion


def assert_idle(engine: TorchEngine) -> None:
    """Check that nothing is left of any request: no sequence, no cache, no id."""
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert not engine.has_work
    assert engine._state is None
    assert engine._reading is None
    assert not engine._running
    assert not engine._ids
