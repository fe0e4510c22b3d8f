"""Requests of one prompt: it is read once, and each gets the text that it gets alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pipo_core.engine import Request
from tests.engine.asking import ask, by_step, counts, last, run

METHODS = ["regular", "mtp", "eagle", "pipo"]


def samples(question: int, length: int, answers: int) -> list[Request]:
    """Return requests for several answers to one question, each with a seed of its own."""
    asked = [ask(10 * question + answer, length, max_tokens=6 + answer) for answer in range(answers)]
    return [Request(**{**vars(one), "prompt_ids": asked[0].prompt_ids}) for one in asked]


@contextmanager
def positions_read(model: Any) -> Iterator[list[int]]:
    """Count the positions that the stock backbone reads: prompts, for steps are written out."""
    read: list[int] = []

    def count(_module: torch.nn.Module, _args: Any, named: dict[str, Any]) -> None:
        read.append(named["inputs_embeds"].shape[:2].numel())

    handle = model.text_model.register_forward_pre_hook(count, with_kwargs=True)
    yield read
    handle.remove()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [4, 64])
def test_a_prompt_is_read_once_for_all_its_answers(engine: Any, random_model: Any, method: str, chunk: int) -> None:
    requests = samples(1, 23, 5)
    alone = run(engine(method, batch=1), requests)
    with positions_read(random_model) as read:
        together = run(engine(method, batch=8, prefill_chunk=chunk), requests)
    assert sum(read) == (12 if method == "pipo" else 23)
    for name, completion in together.items():
        assert completion.token_ids == alone[name].token_ids
        assert counts(completion) == counts(alone[name])


@pytest.mark.parametrize("method", METHODS)
def test_equal_and_different_prompts_start_together(engine: Any, random_model: Any, method: str) -> None:
    requests = [*samples(1, 8, 2), *samples(2, 14, 3), *samples(3, 40, 2), *samples(4, 8, 2)]
    alone = run(engine(method, batch=1), requests)
    together = run(engine(method, batch=9, prefill_chunk=28), requests)
    assert {name: one.token_ids for name, one in together.items()} == {n: one.token_ids for n, one in alone.items()}


def test_scores_of_a_prompt_go_to_those_who_ask(engine: Any) -> None:
    first, second, third = samples(1, 9, 3)
    asked = [Request(**{**vars(first), "prompt_scores": 2}), second, Request(**{**vars(third), "prompt_scores": 0})]
    together = run(engine("regular"), asked)
    scored = run(engine("regular", batch=1), asked[:1])[first.id].prompt_scores
    assert scored is not None
    assert together[first.id].prompt_scores == scored
    assert together[second.id].prompt_scores is None
    assert [one._replace(top=()) for one in together[third.id].prompt_scores or ()] == [
        one._replace(top=()) for one in scored
    ]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_one_of_several_is_cancelled_while_their_prompt_is_read(engine: Any, cancelled: int) -> None:
    requests = samples(1, 40, 3)
    alone = run(engine(batch=1), requests)
    stepped = engine(prefill_chunk=4)
    for request in requests:
        stepped.add(request)
    stepped.step()
    assert stepped.stats().running == 3
    stepped.cancel(requests[cancelled].id)
    assert stepped.stats().running == 2
    for name, parts in by_step(stepped).items():
        completion = last(parts)
        if name == requests[cancelled].id:
            assert completion.finish_reason == "cancelled"
        else:
            assert completion.token_ids == alone[name].token_ids


def test_a_prompt_that_cannot_be_read_ends_all_its_requests(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = engine(prefill_chunk=4)
    broken, fine = samples(1, 40, 3), samples(2, 8, 1)
    for request in [*broken, *fine]:
        stepped.add(request)
    stepped.step()
    assert stepped._reading is not None
    monkeypatch.setattr(stepped._reading.reader, "advance", lambda: 1 / 0)
    ended = {name: last(parts) for name, parts in by_step(stepped).items()}
    assert {ended[request.id].error for request in broken} == {"division by zero"}
    assert ended[fine[0].id].finish_reason == "length"
