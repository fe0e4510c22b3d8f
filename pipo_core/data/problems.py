"""Problem sets: questions with known answers, for rollouts and evaluations."""

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from pipo_core.data.tiny import arithmetic
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import read_jsonl

Reference: TypeAlias = str | list[Any] | dict[str, Any]
"""A JSON value that answers are graded against: the right final answer, or what a grader needs, such as tests."""


@dataclass(frozen=True)
class Problem:
    r"""A question and the reference that its answers are graded against.

    Attributes:
        id: stable name within its source.
        question: the user's question, without instructions about the form of the answer.
        answer: the reference.
        level: difficulty class, for tables.
        instruction: text that follows the question in the user's turn; empty for none.
        solution: worked reasoning with the final answer, as a model writes it after ``<think>\n``; empty for none.
    """

    id: str
    question: str
    answer: Reference
    level: str = ""
    instruction: str = ""
    solution: str = ""


def load_problems(source: str, split: str, count: int | None, seed: int) -> list[Problem]:
    """Return the problems of a source.

    Args:
        source: ``tiny``, or a JSONL file whose rows have ``question`` and ``answer`` and, if known, ``id``,
            ``level`` and ``solution``.
        split: ``train`` or ``heldout``; a file has no splits and ignores it.
        count: number of problems; None for all rows of a file, or 500 tiny problems.
        seed: chooses the tiny problems; a file ignores it.

    Raises:
        MissingInputError: if the file cannot be read, or a row has no question or no answer.
        UsageError: if the tiny world has fewer problems.
    """
    if source == "tiny":
        return _tiny_problems(split, 500 if count is None else count, seed)
    path = Path(source)
    problems = [_parse_problem_row(row, path, line) for line, row in enumerate(read_jsonl(path), start=1)]
    return problems[:count]


def user_message(problem: Problem) -> str:
    """Return the text of the user's turn, the same in training and evaluation."""
    return f"{problem.question}\n{problem.instruction}" if problem.instruction else problem.question


def _tiny_problems(split: str, count: int, seed: int) -> list[Problem]:
    wording = random.Random(f"questions-{split}-{seed}")  # noqa: S311 - wording, not secrets
    reasoning = random.Random(f"solutions-{split}-{seed}")  # noqa: S311
    problems = [
        Problem(
            id=f"tiny-{chain.expression}",
            question=arithmetic.question(chain, wording),
            answer=str(chain.answer),
            level=f"{chain.level} operations",
            solution=arithmetic.reasoning(chain, reasoning),
        )
        for chain in islice(arithmetic.chains(split, seed), count)
    ]
    if len(problems) < count:
        raise UsageError(f"the tiny world has {len(problems):,} {split} problems, not {count:,}")
    return problems


def _parse_problem_row(row: object, path: Path, line: int) -> Problem:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
        raise MissingInputError(f"{path}:{line}: a problem needs a question and an answer")
    return Problem(
        id=str(row.get("id", f"{path.stem}-{line}")),
        question=row["question"],
        answer=_reference(row["answer"], f"{path}:{line}"),
        level=str(row.get("level", "")),
        solution=str(row.get("solution", "")),
    )


def _reference(answer: object, where: str) -> Reference:
    """Return a row's answer: a number as a text, lists and objects as they are."""
    if isinstance(answer, str | list | dict):
        return answer
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    raise MissingInputError(
        f"{where}: the answer of a problem is a text, a number, a list or an object, not {answer!r}"
    )
