"""Greedy answers are the torch engine's, token for token, with as many slots and kept drafts.

The server under test overlaps its steps, reads prompts in pieces and runs out of memory, see `HARD_FLAGS`.
"""

from collections import Counter
from typing import Any

import pytest

from tests.sglang_cpu.conftest import Client, Prompts, Reference, assert_equal

GREEDY_PENALTIES: list[dict[str, float]] = [
    {"presence_penalty": 1.5},
    {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"repetition_penalty": 1.3},
]


@pytest.mark.parametrize("tau", [0.0, 0.4, 0.8, 1.0])
def test_every_threshold(
    client: Client, reference: Reference, prompts: Prompts, ends: frozenset[int], tau: float
) -> None:
    expected = reference.answers(prompts, tau)
    kept = sum(one.kept or 0 for one in expected)
    written = sum(one.slots or 0 for one in expected)
    assert kept == 0 if tau == 1 else kept > 0.05 * written
    assert_equal(client.generate_all(prompts, tau), expected, ends)


def test_the_server_has_a_threshold_of_its_own(client: Client, reference: Reference, prompts: Prompts) -> None:
    answer = client.generate(prompts[0], max_new_tokens=20, ignore_eos=True)
    [expected] = reference.answers(prompts[:1], 0.5, max_tokens=20, ignore_end=True)
    assert answer["output_ids"] == expected.token_ids


@pytest.mark.parametrize("budget", [1, 2, 7])
def test_a_budget_may_end_inside_a_slot(
    client: Client, reference: Reference, prompts: Prompts, ends: frozenset[int], budget: int
) -> None:
    answers = client.generate_all(prompts[:8], 0.0, max_new_tokens=budget, ignore_eos=True)
    assert_equal(answers, reference.answers(prompts[:8], 0.0, max_tokens=budget, ignore_end=True), ends)
    assert all(answer["meta_info"]["finish_reason"]["type"] == "length" for answer in answers)


@pytest.mark.parametrize("penalties", GREEDY_PENALTIES)
def test_penalties_know_both_tokens(
    client: Client, reference: Reference, prompts: Prompts, ends: frozenset[int], penalties: dict[str, float]
) -> None:
    chosen = prompts[:12]
    answers = client.generate_all(chosen, 0.4, max_new_tokens=41, ignore_eos=True, **penalties)
    expected = reference.answers(chosen, 0.4, max_tokens=41, ignore_end=True, **penalties)
    assert_equal(answers, expected, ends)
    plain = reference.answers(chosen, 0.4, max_tokens=41, ignore_end=True)
    assert [one.token_ids for one in plain] != [one.token_ids for one in expected]


def test_a_slot_budget_and_a_count_of_each_slot(client: Client, reference: Reference, prompts: Prompts) -> None:
    parameters = {"max_slots": 5, "record_slots": True}
    answers = client.generate_all(prompts[:8], 0.4, ignore_eos=True, custom_params=parameters)
    for answer, one in zip(answers, reference.answers(prompts[:8], 0.4, ignore_end=True), strict=True):
        assert one.slot_token_counts is not None
        counts = one.slot_token_counts[:5]
        assert answer["meta_info"]["pipo"] == [
            {"slots": 5, "kept": sum(counts) - 5, "slot_token_counts": counts},
        ]
        assert answer["output_ids"] == one.token_ids[: sum(counts)]
        assert answer["meta_info"]["finish_reason"] == {"type": "length", "length": sum(counts)}


def test_rejected_drafts_and_confidences_are_recorded(client: Client, reference: Reference, prompts: Prompts) -> None:
    recorded = {"record_drafts": True}
    answers = client.generate_all(prompts[:20], 0.4, max_new_tokens=24, ignore_eos=True, custom_params=recorded)
    for answer, (slots, confidences) in zip(answers, reference.records(prompts[:20], 0.4, 24), strict=True):
        drafts = answer["meta_info"]["pipo"][0]["drafts"]
        assert [draft for draft, _ in drafts] == [slot.draft for slot in slots]
        # The reference says nothing of a last draft that the budget cuts off.
        assert len(drafts) - len(confidences) in (0, 1)
        assert [confidence for _, confidence in drafts][: len(confidences)] == pytest.approx(confidences, abs=1e-4)
        assert not all(slot.kept for slot in slots)


def test_stops_count_in_tokens(client: Client, prompts: Prompts) -> None:
    """Ids and strings end a text wherever in a slot they lie."""
    whole = next(one for one in client.generate_all(prompts[:8], 0.0) if len(one["output_ids"]) > 20)
    ids, text, tokens = whole["prompt"], whole["text"], whole["output_ids"]
    for place in (4, 5, 8, 9):
        stop = text[place : place + 3]
        answer = client.generate(ids, 0.0, stop=[stop])
        assert answer["text"] == text[: text.index(stop)], stop
        assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}
        answer = client.generate(ids, 0.0, stop_token_ids=[tokens[place]])
        end = tokens.index(tokens[place])
        assert answer["output_ids"] == tokens[: end + 1]
        assert answer["meta_info"]["pipo"][0]["slots"] == end // 2 + 1


def test_an_end_is_held_back_until_enough_tokens(client: Client, prompts: Prompts, ends: frozenset[int]) -> None:
    answers = client.generate_all(prompts, 0.4)
    finished = [one for one in answers if one["meta_info"]["finish_reason"]["type"] == "stop"]
    assert finished
    for one in finished[:2]:
        length = len(one["output_ids"])
        answer = client.generate(one["prompt"], 0.4, min_new_tokens=length + 5, max_new_tokens=length + 20)
        assert len(answer["output_ids"]) >= length + 5
        assert not set(answer["output_ids"][: length + 4]) & ends


def test_a_bias_holds_for_both_tokens(client: Client, prompts: Prompts) -> None:
    chosen = 300
    answer = client.generate(prompts[0], 0.0, max_new_tokens=9, logit_bias={str(chosen): 100}, ignore_eos=True)
    assert answer["output_ids"] == [chosen] * 9
    assert answer["meta_info"]["pipo"] == [{"slots": 5, "kept": 4}]


def test_sampled_slots_have_the_torch_engine_s_distribution(
    client: Client, reference: Reference, prompts: Prompts
) -> None:
    """First tokens and drafts are both sampled: of two tokens each, the four slots are as frequent as there."""
    count, sampling = 400, {"temperature": 1.5, "top_k": 2, "max_new_tokens": 2, "ignore_eos": True}
    body = {"input_ids": list(prompts[1]), "sampling_params": {**sampling, "n": 100, "custom_params": {"tau": 0}}}
    answers = [one for _ in range(count // 100) for one in client.post("/generate", body).json()]
    found = Counter(tuple(one["output_ids"]) for one in answers)
    expected = reference.sampled_slots(prompts[1], count, temperature=1.5, top_k=2)
    assert len(expected) > 2
    distance = sum(abs(found[slot] - expected[slot]) for slot in {*found, *expected}) / 2 / count
    assert distance < 0.15, (found, expected)  # between two such samples of one distribution, about 0.04


def test_several_answers_to_one_prompt(client: Client, prompts: Prompts) -> None:
    body: dict[str, Any] = {
        "input_ids": list(prompts[0]),
        "sampling_params": {"temperature": 1.0, "n": 3, "max_new_tokens": 16, "custom_params": {"tau": 0}},
    }
    answers = client.post("/generate", body).json()
    assert len({tuple(answer["output_ids"]) for answer in answers}) > 1
    assert all(answer["meta_info"]["completion_tokens"] == len(answer["output_ids"]) for answer in answers)
    greedy = {**body, "sampling_params": {**body["sampling_params"], "temperature": 0}}
    texts = {answer["text"] for answer in client.post("/generate", greedy).json()}
    assert texts == {client.generate(prompts[0], 0.0, max_new_tokens=16)["text"]}
