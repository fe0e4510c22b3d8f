"""The engine: batching changes no text, budgets and ends are exact, counts are of real tokens."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Request
from pipo_core.errors import UsageError


def ask(number: int, length: int = 9, **changes: Any) -> Request:
    sampling = SamplingParams(temperature=1.0, top_k=20, presence_penalty=0.5, seed=number)
    prompt = tuple((7 * number + 13 * place) % 380 + 3 for place in range(length))
    return replace(Request(str(number), prompt, sampling, max_tokens=20), **changes)


def run(engine: Any, requests: list[Request]) -> dict[str, Completion]:
    return {completion.id: completion for completion in engine.generate(requests)}


@pytest.mark.parametrize("method", ["regular", "pipo"])
def test_texts_do_not_depend_on_batch_size_or_company(engine: Any, method: str) -> None:
    requests = [ask(n, length=1 + n * 5 % 17, max_tokens=5 + n * 7 % 23) for n in range(11)]
    one_by_one = run(engine(method, batch=1), requests)
    for batch in (3, 11):
        together = run(engine(method, batch=batch), requests)
        for name, alone in one_by_one.items():
            assert together[name].token_ids == alone.token_ids
            assert together[name].slot_token_counts == alone.slot_token_counts


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 7, 8])
def test_token_budgets_are_exact_odd_or_even(engine: Any, tau: float, tokens: int) -> None:
    for completion in run(engine(tau=tau), [ask(n, max_tokens=tokens) for n in range(5)]).values():
        assert len(completion.token_ids) == tokens == sum(completion.slot_token_counts)
        assert completion.finish_reason == "length"


@pytest.mark.parametrize(("tau", "tokens"), [(0.0, 12), (1.0, 6)])
def test_slot_budgets(engine: Any, tau: float, tokens: int) -> None:
    completion = run(engine(tau=tau), [ask(1, max_tokens=None, max_slots=6)])["1"]
    assert (completion.slots, len(completion.token_ids)) == (6, tokens)
    assert completion.kept == (6 if tau == 0 else 0)


def test_counts_agree_and_pads_are_nowhere(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    for completion in run(engine(tau=0.5), [ask(n, max_tokens=40) for n in range(6)]).values():
        assert 0 < completion.kept < completion.drafts <= completion.slots
        assert completion.slots + completion.kept == len(completion.token_ids)
        assert completion.slot_token_counts.count(2) == completion.kept
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def test_an_end_in_place_one_drops_its_draft_and_in_place_two_counts_if_kept(engine: Any) -> None:
    free = run(engine(tau=0.0), [ask(3, max_tokens=20)])["3"].token_ids
    for place in (1, 2):
        position = next(
            p for p in range(place - 1, 20, 2) if free[p] not in free[:p]
        )  # first time that a token appears in this place of a slot
        ended = run(engine(tau=0.0), [ask(3, max_tokens=20, stop_ids=frozenset({free[position]}))])["3"]
        assert ended.finish_reason == "stop"
        assert ended.token_ids == free[:position]
        assert ended.slots == position // 2 + 1
        assert ended.slot_token_counts[-1] == place
        assert ended.kept == sum(count == 2 for count in ended.slot_token_counts)


def test_a_rejected_end_does_not_end(engine: Any) -> None:
    """With every draft rejected, only first tokens can end a text."""
    free = run(engine(tau=1.0), [ask(3, max_tokens=12)])["3"].token_ids
    drafts = set(range(380)) - set(free)
    assert run(engine(tau=1.0), [ask(3, max_tokens=12, stop_ids=frozenset(drafts))])["3"].token_ids == free


def test_the_pad_id_ends_a_text_when_it_is_emitted(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.pad_token_id in engine().end_ids
    inside = ask(5, max_tokens=10)
    inside = replace(inside, prompt_ids=(*inside.prompt_ids[:3], tokenizer.pad_token_id, *inside.prompt_ids[3:]))
    written = run(engine(), [inside])["5"]
    assert len(written.token_ids) == 10  # a PAD's id inside a prompt is text


def test_ignore_end_goes_on(engine: Any) -> None:
    everything = frozenset(range(400))
    assert len(run(engine(), [ask(2, stop_ids=everything, ignore_end=True)])["2"].token_ids) == 20
    assert run(engine(), [ask(2, stop_ids=everything)])["2"].token_ids == []


def test_stop_strings_across_a_pair_boundary(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    free = run(engine(tau=0.0), [ask(4, max_tokens=30)])["4"]
    for start in (2, 3):  # the string begins in either place of a slot
        stop = tokenizer.decode(free.token_ids[start : start + 3], skip_special_tokens=True)
        if not stop or "\ufffd" in stop:
            continue
        ended = run(engine(tau=0.0), [ask(4, max_tokens=30, stop=("never there", stop))])["4"]
        assert ended.finish_reason == "stop"
        assert ended.text == free.text[: free.text.index(stop)]
        assert ended.slots < free.slots


@pytest.mark.parametrize("wrong", [{"prompt_ids": ()}, {"max_tokens": None}, {"max_tokens": 0}, {"max_slots": -1}])
def test_impossible_requests_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask(1, **wrong)
