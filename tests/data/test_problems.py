"""Problems from a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.problems import load_problems
from pipo_core.data.tiny import arithmetic
from pipo_core.errors import MissingInputError, UsageError


def test_tiny_problems_are_all_different_however_many() -> None:
    problems = load_problems("tiny", "heldout", 5000, 0)
    assert len({problem.id for problem in problems}) == 5000


def test_more_tiny_problems_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "LEVELS", (3,))
    with pytest.raises(UsageError, match=r"the tiny world has \d+ heldout problems, not 5,000"):
        load_problems("tiny", "heldout", 5000, 0)


def load(tmp_path: Path, answer: Any) -> Any:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": answer}) + "\n")
    (problem,) = load_problems(str(path), "train", None, 0)
    return problem.answer


@pytest.mark.parametrize(
    ("answer", "read"),
    [("4", "4"), (4, "4"), (0.5, "0.5"), (["4", "5"], ["4", "5"]), ({"tests": [1]}, {"tests": [1]})],
)
def test_an_answer_keeps_its_form(tmp_path: Path, answer: Any, read: Any) -> None:
    assert load(tmp_path, answer) == read


@pytest.mark.parametrize("answer", [None, True])
def test_what_is_no_answer_is_refused_with_its_line(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(MissingInputError, match=r"p\.jsonl:1: the answer of a problem is"):
        load(tmp_path, answer)
