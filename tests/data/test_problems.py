"""Problems from a file."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.problems import Problem, load_problems, user_message
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


@pytest.mark.parametrize("answer", [True, " ", math.nan])
def test_what_is_no_answer_is_refused_with_its_line(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(MissingInputError, match=r"p\.jsonl:1: the answer of a problem is"):
        load(tmp_path, answer)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "?"}, "a problem needs a question and an answer"),
        ({"question": "?", "answer": None}, "a problem needs a question and an answer"),
        ({"question": " ", "answer": 1}, "a problem needs a question and an answer"),
        ({"question": "?", "answer": 1, "hint": "x"}, "nothing reads the key 'hint' of a problem"),
        ({"question": "?", "answer": 1, "id": 1.5}, "the id of a problem is a text or a whole number"),
        ({"question": "?", "answer": 1, "level": []}, "the level of a problem is a text or a whole number"),
        ({"question": "?", "answer": 1, "solution": 3}, "the solution of a problem is a text"),
        ({"question": "?", "answer": 1, "instruction": ["x"]}, "the instruction of a problem is a text"),
        ({"question": "?", "answer": 1, "solution": False}, "the solution of a problem is a text"),
        ({"question": "a\ud800", "answer": 1}, "half of a character"),
        ('{"question": "?", "answer": 1, "answer": 2}', "an object has the key 'answer' twice"),
        ('{"question": "?", "ans', "not JSON, or a line that was cut off"),
    ],
)
def test_a_row_that_is_no_problem_is_refused_with_its_line(tmp_path: Path, row: Any, complaint: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"question": "1+1", "answer": 2}\n\n' + (row if isinstance(row, str) else json.dumps(row)))
    with pytest.raises(MissingInputError, match=rf"p\.jsonl:3: {complaint}"):
        load_problems(str(path), "train", None, 0)


def test_all_that_a_row_says_is_in_the_problem(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    row = {"id": 7, "question": "1+1", "answer": 2, "instruction": "Briefly.", "level": 1, "solution": "2", "x": None}
    path.write_text(json.dumps(row))
    (problem,) = load_problems(str(path), "train", None, 0)
    assert problem == Problem("7", "1+1", "2", "1", "Briefly.", "2")
    assert user_message(problem) == "1+1\nBriefly."


@pytest.mark.parametrize(
    ("ids", "count", "complaint"),
    [([], None, "holds no problems"), ([1, 1], None, "two problems have the same id"), ([1, 2], 3, "holds 2 problems")],
)
def test_a_file_with_too_few_or_equal_problems_is_refused(
    tmp_path: Path, ids: list[int], count: int | None, complaint: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": name, "question": "?", "answer": 1}) + "\n" for name in ids))
    with pytest.raises(MissingInputError, match=complaint):
        load_problems(str(path), "train", count, 0)
