"""How much of a text is a loop: against a slow definition, on loops and on honest texts."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.problems import load_problems
from pipo_core.data.repetition import OCCURRENCES, PASSAGE, repetition

ROOT = Path(__file__).resolve().parents[2]


def slowly(text: str) -> float:
    """The definition, with the passages themselves in place of their hashes."""
    passages = [text[start : start + PASSAGE] for start in range(len(text) - PASSAGE + 1)]
    counts = Counter(passages)
    covered = {
        place
        for start, passage in enumerate(passages)
        if counts[passage] >= OCCURRENCES
        for place in range(start, start + PASSAGE)
    }
    return len(covered) / max(1, len(text))


PIECES = st.lists(
    st.sampled_from(["a" * 7, "So x = 3. ", "Wait, let me check that once more. ", "😀", "\n"]), max_size=60
)


@given(PIECES.map("".join))
def test_it_is_what_the_definition_says(text: str) -> None:
    assert repetition(text) == pytest.approx(slowly(text))


@pytest.mark.parametrize(
    "loop", ["a", "1 2 3 ", "等等，让我再检查一遍。", "So x = 3. Wait, let me check again. ", "line\n" * 30 + "end. "]
)
def test_loops_have_shares_near_1(loop: str) -> None:
    assert repetition(loop * (4000 // len(loop))) > 0.99


def test_a_loop_counts_by_its_share_of_the_text() -> None:
    honest = (ROOT / "docs" / "serving.md").read_text()[:6000]
    loop = "But wait, maybe I should check the case n = 0 as well. "
    text = honest + loop * (2000 // len(loop))
    assert repetition(text) == pytest.approx(2000 / 8000, abs=0.02)


@pytest.mark.parametrize(
    "name",
    [
        *("LICENSE", "README.md", "docs/architecture.md", "docs/sglang.md", "docs/troubleshooting.md"),
        *("pipo_core/decode/cache.py", "pipo_core/engine/torch_engine.py", "tests/data/test_augment.py"),
    ],
)
def test_honest_texts_have_shares_near_0(name: str) -> None:
    text = (ROOT / name).read_text()
    assert repetition(text) < 0.05
    # A program in the thought and again in the answer is no loop.
    assert repetition(f"{text}\n</think>\n\n{text}") < 0.15


def test_worked_solutions_do_not_loop() -> None:
    assert max(repetition(problem.solution) for problem in load_problems("tiny", "train", 200, 0)) == 0


def test_short_and_strange_texts() -> None:
    assert repetition("") == repetition("a" * (PASSAGE - 1)) == 0
    assert repetition("a" * (PASSAGE + OCCURRENCES - 2)) == 0  # three passages
    assert repetition("a" * (PASSAGE + OCCURRENCES - 1)) == 1
    assert repetition("\ud800" * 200) == 1
    rng = random.Random(0)
    assert repetition("".join(chr(rng.randrange(32, 0x2FFF)) for _ in range(20_000))) == 0
