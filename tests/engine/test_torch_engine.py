"""The engine: batching changes no text, budgets and ends are exact, counts are of real tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import Sampler
from pipo_core.errors import CheckpointError, UsageError
from tests.engine.asking import ask, counts, run


@pytest.mark.parametrize("method", ["regular", "pipo"])
def test_texts_do_not_depend_on_batch_size_or_company(engine: Any, method: str) -> None:
    requests = [ask(n, length=1 + n * 5 % 17, max_tokens=5 + n * 7 % 23) for n in range(11)]
    one_by_one = run(engine(method, batch=1), requests)
    for batch in (3, 11):
        together = run(engine(method, batch=batch), requests)
        for name, alone in one_by_one.items():
            assert together[name].token_ids == alone.token_ids
            assert together[name].slot_token_counts == alone.slot_token_counts


def test_each_request_may_have_a_threshold_of_its_own(engine: Any) -> None:
    """In one batch, while others join and leave, a request writes what an engine with its threshold writes."""
    named = [None, 0.0, 0.3, 0.7, 1.0]
    requests = [ask(n, max_tokens=6 + n * 5 % 19, tau=named[n % len(named)]) for n in range(15)]
    together = run(engine(tau=0.5, batch=4), requests)
    for request in requests:
        own = 0.5 if request.tau is None else request.tau
        alone = run(engine(tau=own, batch=1), [replace(request, tau=None)])[request.id]
        assert together[request.id].token_ids == alone.token_ids
        assert together[request.id].slot_token_counts == alone.slot_token_counts
    assert len({(one.kept or 0) / (one.slots or 1) for one in together.values()}) > 3


@pytest.mark.parametrize(("method", "tau"), [("regular", None), ("mtp", None), ("pipo", 1.0)])
def test_a_threshold_where_no_draft_could_be_kept_is_refused(engine: Any, method: str, tau: float | None) -> None:
    with pytest.raises(UsageError, match="no drafts that a tau of its own could keep"):
        engine(method, tau=tau).add(ask(1, tau=0.5))


@pytest.mark.parametrize("tau", [float("nan"), float("inf")])
def test_a_threshold_is_a_number(tau: float) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        ask(1, tau=tau)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 7, 8])
def test_token_budgets_are_exact_odd_or_even(engine: Any, tau: float, tokens: int) -> None:
    for completion in run(engine(tau=tau), [ask(n, max_tokens=tokens) for n in range(5)]).values():
        assert len(completion.token_ids) == tokens == sum(counts(completion).per_step)
        assert completion.finish_reason == "length"


@pytest.mark.parametrize(("tau", "tokens"), [(0.0, 12), (1.0, 6)])
def test_slot_budgets(engine: Any, tau: float, tokens: int) -> None:
    completion = run(engine(tau=tau), [ask(1, max_tokens=None, max_slots=6)])["1"]
    assert (completion.slots, len(completion.token_ids)) == (6, tokens)
    assert completion.kept == (6 if tau == 0 else 0)


def test_counts_agree_and_pads_are_nowhere(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    for completion in run(engine(tau=0.5), [ask(n, max_tokens=40) for n in range(6)]).values():
        slots, drafts, kept, per_step = counts(completion)
        assert 0 < kept < drafts <= slots
        assert slots + kept == len(completion.token_ids)
        assert per_step.count(2) == kept
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
        per_step = counts(ended).per_step
        assert per_step[-1] == place
        assert ended.kept == per_step.count(2)


def test_an_end_as_a_draft_ends_the_text_only_if_it_is_kept(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    end = 7
    original = Sampler.sample

    def drafts_are_ends(self: Sampler, logits: torch.Tensor, place: int, *of: Any, **rows: Any) -> torch.Tensor:
        drawn = original(self, logits, place, *of, **rows)
        return torch.full_like(drawn, end) if place == 1 else drawn

    monkeypatch.setattr(Sampler, "sample", drafts_are_ends)
    slots = []
    for completion in run(
        engine(tau=0.5), [ask(n, max_tokens=30, stop_ids=frozenset({end})) for n in range(8)]
    ).values():
        assert completion.finish_reason == "stop"
        assert completion.kept == 1
        slots.append(counts(completion).slots)
        assert completion.slot_token_counts == [1] * (slots[-1] - 1) + [2]
    assert max(slots) > 1  # some drafts were rejected before, and the text went on


@pytest.mark.parametrize("place", [0, 1])
def test_the_pad_id_ends_a_text_when_it_is_emitted(
    engine: Any, random_model: Any, tokenizer: PreTrainedTokenizerFast, place: int
) -> None:
    pad = tokenizer.pad_token_id
    calls: list[int] = []

    def emit_pad(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(len(output))
        if len(calls) == 3 + place:  # the second slot's first token, or its draft
            output = output.clone()
            output[:, pad] = 1e4
        return output

    handle = random_model.lm_head.register_forward_hook(emit_pad)
    pair_engine = engine(tau=0.0)
    written = run(pair_engine, [ask(5, max_tokens=10, stop_ids=pair_engine.end_ids)])["5"]
    handle.remove()
    assert written.finish_reason == "stop"
    assert len(written.token_ids) == 2 + place
    assert written.slot_token_counts == [2, 1 + place]


def test_a_pads_id_inside_a_prompt_is_text(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    inside = ask(5, max_tokens=10)
    inside = replace(inside, prompt_ids=(*inside.prompt_ids[:3], tokenizer.pad_token_id, *inside.prompt_ids[3:]))
    written = run(engine(), [inside])["5"]
    assert len(written.token_ids) == 10


def test_ignore_end_goes_on(engine: Any) -> None:
    everything = frozenset(range(400))
    assert len(run(engine(), [ask(2, stop_ids=everything, ignore_end=True)])["2"].token_ids) == 20
    assert run(engine(), [ask(2, stop_ids=everything)])["2"].token_ids == []


def test_stop_strings_across_a_pair_boundary(engine: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    number = next(n for n in range(50) if _is_plain(run(engine(tau=0.0), [ask(n, max_tokens=10)])[str(n)].text))
    free = run(engine(tau=0.0), [ask(number, max_tokens=10)])[str(number)]
    for start in (2, 3):  # the string begins in either place of a slot
        stop = tokenizer.decode(free.token_ids[start : start + 3], skip_special_tokens=True)
        ended = run(engine(tau=0.0), [ask(number, max_tokens=10, stop=("never there", stop))])[str(number)]
        assert ended.finish_reason == "stop"
        assert ended.text == free.text[: free.text.index(stop)]
        assert ended.token_ids == free.token_ids[: len(ended.token_ids)]
        assert len(ended.token_ids) <= start + 3
        assert sum(counts(ended).per_step) == len(ended.token_ids)  # nothing after the stop is counted


def _is_plain(text: str) -> bool:
    """Whether every token of the text stands for whole characters."""
    return "\ufffd" not in text and len(text) > 10


def test_ids_outside_the_vocabulary_are_refused_before_anything_runs(engine: Any) -> None:
    for wrong in (-1, 10**6):
        with pytest.raises(UsageError, match="request 2: a prompt id is outside"):
            list(engine().generate([ask(1), ask(2, prompt_ids=(5, wrong))]))


def test_space_grows_with_the_sequences_and_not_with_the_budget(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int]] = []
    original = SequenceCache.__init__

    def spy(self: SequenceCache, *args: Any, **kwargs: Any) -> None:
        opened.append((kwargs["max_sequences"], kwargs["capacity"]))
        original(self, *args, **kwargs)

    monkeypatch.setattr(SequenceCache, "__init__", spy)
    pair_engine = engine(tau=0.0, batch=64)
    generated = pair_engine.generate([ask(1, max_tokens=30_000), ask(2, max_tokens=10)])
    assert next(generated).id == "2"
    generated.close()
    assert all(rows == 2 and capacity < 300 for rows, capacity in opened)


def test_random_pair_parts_are_refused(random_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_model, "fresh_parts", ("compressor", "confidence_head"))
    with pytest.raises(CheckpointError, match="no compressor, confidence_head"):
        open_method("pipo", random_model, 0, tau=0.5)
    open_method("regular", random_model, 0)


@pytest.mark.parametrize(("method", "tau"), [("regular", 0.5), ("pipo", float("nan")), ("magic", None)])
def test_methods_refuse_what_they_cannot_do(random_model: Any, method: str, tau: float | None) -> None:
    with pytest.raises(UsageError):
        open_method(method, random_model, 0, tau=tau)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_ids": ()},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"max_slots": -1},
        {"max_tokens": 2.5},
        {"stop": ("",)},
    ],
)
def test_impossible_requests_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask(1, **wrong)
