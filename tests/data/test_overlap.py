"""Overlap with benchmarks, against a definition that compares every pair."""

from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.overlap import MIN_CONTAINED, Overlap, compare_with, overlap
from pipo_core.data.questions import normalised

LONG = "Find the number of ordered pairs of positive integers (m, n) with m + n = 100."


def test_the_same_question_in_another_spelling() -> None:
    asked = ["Other.", f"  {LONG.upper()}\n", LONG.replace(" ", "\u00a0")]
    assert overlap(asked, ["x", LONG]) == [Overlap(1, 1, "exact"), Overlap(2, 1, "exact")]


def test_a_long_question_inside_another_one_counts_and_a_short_one_does_not() -> None:
    at_least, below = "x" * MIN_CONTAINED, "y" * (MIN_CONTAINED - 1)
    asked = [f"Solve this: {LONG} Answer:", f"see {at_least}.", f"see {below}.", below]
    assert overlap(asked, [LONG, at_least, below]) == [
        Overlap(0, 0, "contained"),
        Overlap(1, 1, "contained"),
        Overlap(3, 2, "exact"),
    ]
    assert overlap([LONG], [f"Solve this: {LONG}"]) == []  # the other way round is no leak of the benchmark


def test_empty_texts_overlap_with_nothing() -> None:
    assert overlap(["", " ", "a"], ["", "  "]) == []
    assert overlap([], [LONG]) == overlap([LONG], []) == []


WORDS = st.lists(st.sampled_from(["ab", "Cd", "e" * 20, "ﬁ", "  "]), max_size=6).map(" ".join)


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=4))
def test_it_finds_what_comparing_every_pair_finds(questions: list[str], benchmark: list[str]) -> None:
    expected = []
    for index, question in enumerate(map(normalised, questions)):
        texts = [normalised(text) for text in benchmark]
        if question and question in texts:
            expected.append((index, "exact"))
        elif any(len(text) >= MIN_CONTAINED and text in question for text in texts):
            expected.append((index, "contained"))
    assert [(found.question, found.kind) for found in overlap(questions, benchmark)] == expected


def test_each_benchmark_is_compared_by_itself() -> None:
    found = compare_with({"a": "What?", "b": f"{LONG} So?", "c": "Why?"}, {"one": ["what?", LONG], "two": ["why?"]})
    assert [(one.name, one.compared, one.exact, one.contained) for one in found] == [
        ("one", 2, ["a"], ["b"]),
        ("two", 1, ["c"], []),
    ]
    assert found[0].ids == {"a", "b"}
