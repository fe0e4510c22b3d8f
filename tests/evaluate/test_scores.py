from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.problems import Problem
from pipo_core.evaluate.scores import Outcome, ScoredAnswer, cut, figures, outcome

counts = st.lists(st.integers(1, 2), min_size=1, max_size=40)


def row(
    slots: Sequence[int],
    *,
    problem: str = "a",
    sample: int = 0,
    stop: bool = True,
    correct: bool = True,
    drafts: int = 0,
    prompt_tokens: int | None = None,
) -> ScoredAnswer:
    return ScoredAnswer.of(
        {
            "problem": problem,
            "sample": sample,
            "slot_token_counts": list(slots),
            "drafts": drafts,
            "finish_reason": "stop" if stop else "length",
            "correct": correct,
            "prompt_tokens": prompt_tokens,
        }
    )


@given(counts, st.integers(1, 90), st.booleans())
def test_a_token_budget_cuts_where_a_decoder_that_counts_tokens_stops(slots: list[int], limit: int, stop: bool) -> None:
    tokens = steps = 0
    ended = False
    for number, count in enumerate(slots):
        if tokens == limit:
            break
        steps += 1
        for place in range(count):
            if tokens < limit:
                tokens += 1
                ended = stop and number == len(slots) - 1 and place == count - 1
    result = cut(row(slots, stop=stop), "tokens", limit)
    assert (result.tokens, result.slots, result.finished, result.correct) == (tokens, steps, ended, ended)


@given(counts, st.integers(1, 60), st.booleans())
def test_a_slot_budget_cuts_whole_slots(slots: list[int], limit: int, stop: bool) -> None:
    result = cut(row(slots, stop=stop), "slots", limit)
    assert (result.tokens, result.slots) == (sum(slots[:limit]), len(slots[:limit]))
    assert result.finished == (stop and len(slots) <= limit)


def test_the_end_token_needs_a_place_in_the_budget() -> None:
    # Four tokens and the end token count as five.
    answer = row([1, 1, 1, 1, 1])
    assert cut(answer, "tokens", 5).correct
    assert not cut(answer, "tokens", 4).finished


def test_a_wrong_answer_stays_wrong_and_a_cut_one_becomes_wrong() -> None:
    assert not cut(row([2, 2], correct=False), "tokens", 10).correct
    assert cut(row([2, 2], correct=False), "tokens", 10).finished
    assert not cut(row([2, 2], stop=False), "tokens", 10).correct


def test_figures_of_a_case_done_by_hand() -> None:
    problems = [Problem("a", "?", "1", "easy"), Problem("b", "?", "2", "hard")]

    def answers(plan: dict[str, list[bool]]) -> Outcome:
        rows = [
            row([2, 2, 1], problem=name, sample=sample, correct=right)
            for name, rights in plan.items()
            for sample, right in enumerate(rights)
        ]
        return outcome(rows, problems, 4, "tokens", 5)

    baseline = answers({"a": [True] * 4, "b": [True, True, False, False]})
    arm = answers({"a": [True, False, False, False], "b": [True, True, True, False]})
    result = figures(arm, problems, baseline, seed=0)
    assert result["avg"]["value"] == pytest.approx((1 / 4 + 3 / 4) / 2)
    # pass@2 = 1 - C(n-c, 2) / C(4, 2): 1 - 3/6 and 1 - 0.
    assert result["pass"]["2"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert result["pass"]["4"]["value"] == pytest.approx(1)
    assert result["difference"]["value"] == pytest.approx((-0.75 + 0.25) / 2)
    assert result["difference"]["low"] <= -0.75 + 1e-12
    assert {level: entry["avg"]["value"] for level, entry in result["levels"].items()} == {
        "easy": 0.25,
        "hard": 0.75,
    }
    assert result["tokens_per_slot"] == pytest.approx(5 / 3)
    assert (result["mean_tokens"], result["finished"]) == (5, 1)
    assert figures(arm, problems, None, seed=0)["difference"] is None


def test_drafts_are_counted_within_each_budget() -> None:
    # Two answers to one problem: the first keeps only its early drafts, the second ends with a first token.
    early = row([2, 2, 2, 1, 1, 1], drafts=6)
    ended = row([1, 2, 1], sample=1, drafts=2)
    problems = [Problem("a", "?", "1")]

    def kept(limit: int, unit: str) -> tuple[int, float]:
        result = figures(
            outcome([early, ended], problems, 2, "slots" if unit == "slots" else "tokens", limit), problems, None, 0
        )
        return result["drafts"], result["drafts_kept"]

    assert kept(6, "slots") == (8, 4 / 8)
    assert kept(3, "slots") == (5, 4 / 5)
    assert kept(1, "slots") == (2, 1 / 2)
    # Three tokens are two slots of each answer. The first answer has no budget left for its second draft.
    assert kept(3, "tokens") == (4, 2 / 4)
    plain = [row([1, 1, 1], sample=sample) for sample in range(2)]
    result = figures(outcome(plain, problems, 2, "slots", 2), problems, None, 0)
    assert (result["drafts"], result["drafts_kept"]) == (0, None)


def test_accuracy_by_the_parity_of_the_prompt() -> None:
    problems = [Problem(name, "?", "1") for name in "abc"]
    lengths = {"a": 7, "b": 8, "c": 9}
    rights = {"a": [True, True], "b": [False, True], "c": [True, False]}
    rows = [
        row([1], problem=name, sample=sample, prompt_tokens=lengths[name], correct=right)
        for name, both in rights.items()
        for sample, right in enumerate(both)
    ]
    parity = figures(outcome(rows, problems, 2, "slots", 1), problems, None, 0)["parity"]
    assert {name: (part["problems"], part["avg"]["value"]) for name, part in parity.items()} == {
        "odd": (2, 0.75),
        "even": (1, 0.5),
    }
    older = [replace(one, prompt_tokens=None) for one in rows[:1]] + rows[1:]
    assert figures(outcome(older, problems, 2, "slots", 1), problems, None, 0)["parity"] == {}


def test_problems_without_levels_have_none() -> None:
    problems = [Problem("a", "?", "1"), Problem("b", "?", "1", "hard")]
    rows = [row([1], problem=name, correct=name == "b") for name in "ab"]
    assert figures(outcome(rows[:1], problems[:1], 1, "slots", 1), problems[:1], None, 0)["levels"] == {}
    levels = figures(outcome(rows, problems, 1, "slots", 1), problems, None, 0)["levels"]
    assert [(name, level["problems"], level["avg"]["value"]) for name, level in levels.items()] == [("hard", 1, 1.0)]


def test_the_order_of_answers_on_disk_does_not_matter() -> None:
    problems = [Problem(str(i), "?", "1", "x") for i in range(5)]
    rows = [
        row([1] * (1 + s), problem=p.id, sample=s, correct=(int(p.id) + s) % 3 == 0) for p in problems for s in range(3)
    ]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert outcome(rows, problems, 3, "slots", 2) == outcome(shuffled, problems, 3, "slots", 2)
