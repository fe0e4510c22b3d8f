"""Questions as keys: normal form, places, shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.questions import SHARD, SPLIT, VALIDATION, normalised, place_of, shard_of


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" What\tis\n\n2 + 2? ", "what is 2 + 2?"),
        ("ﬁnd ½ of Ａ", "find 1⁄2 of a"),  # ligature, fraction, full width: NFKC
        ("a\u00a0b\u2003c", "a b c"),
        ("STRASSE", "strasse"),
        ("", ""),
    ],
)
def test_the_normal_form(text: str, normal: str) -> None:
    assert normalised(text) == normal


def test_a_place_is_what_sha256_says() -> None:
    # printf 'split\nwhat is 2 + 2?' | sha256sum, the first 8 bytes without their last 11 bits, as a fraction.
    assert place_of("What is  2 + 2?", SPLIT) == (0x5C1C4CD2A578919B >> 11) / 2**53


@given(st.text(max_size=30), st.sampled_from([SPLIT, VALIDATION, SHARD]))
def test_places_are_from_0_on_and_below_1(text: str, use: str) -> None:
    assert 0 <= place_of(text, use) < 1
    assert place_of(f"  {text.upper()}\n", use) == place_of(text.upper(), use)


@given(st.text(max_size=30), st.integers(1, 9))
def test_every_question_is_in_one_shard(text: str, count: int) -> None:
    assert shard_of(text, count) in range(count)


def test_places_of_different_uses_are_independent() -> None:
    questions = [f"question {number}" for number in range(4000)]
    both = sum(place_of(q, SPLIT) < 0.5 and place_of(q, VALIDATION) < 0.5 for q in questions)
    assert both == pytest.approx(1000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
    both = sum(place_of(q, SPLIT) < 0.5 and shard_of(q, 2) == 0 for q in questions)
    assert both == pytest.approx(1000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
    counts = [sum(shard_of(q, 4) == index for q in questions) for index in range(4)]
    assert counts == pytest.approx([1000] * 4, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
