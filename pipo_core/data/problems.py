"""Problem sets: questions with known answers, for rollouts and evaluation alike."""

import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from pipo_core.data.tiny import arithmetic
from pipo_core.errors import MissingInputError
from pipo_core.files import read_jsonl

Reference: TypeAlias = str | list[Any] | dict[str, Any]
"""What an answer is graded against, as JSON: the right final answer, or what a grader needs, such as tests."""


@dataclass(frozen=True)
class Problem:
    r"""One question.

    Attributes:
        id: stable name within its source.
        question: what the user asks, without instructions on form.
        answer: what an answer is graded against.
        level: difficulty class, for tables.
        instruction: what the user is asked to do beside it; empty for none.
        solution: worked reasoning with the final answer, as written after ``<think>\n``; empty where there is none.
    """

    id: str
    question: str
    answer: Reference
    level: str = ""
    instruction: str = ""
    solution: str = ""


def load_problems(source: str, split: str, count: int | None, seed: int) -> list[Problem]:
    """Return problems of a source.

    Args:
        source: ``tiny``, or a JSONL file of rows with ``question`` and ``answer`` and, if known, ``id``, ``level``
            and ``solution``.
        split: ``train`` or ``heldout``; only the tiny world has both.
        count: how many; all of a file where None, 500 tiny problems.
        seed: of the tiny world's draw.

    Raises:
        MissingInputError: if the file is missing or a row lacks a field.
    """
    if source == "tiny":
        return _tiny(split, 500 if count is None else count, seed)
    path = Path(source)
    problems = [_from_row(row, path, line) for line, row in enumerate(read_jsonl(path), start=1)]
    return problems[:count]


def user_message(problem: Problem) -> str:
    """Return the text of the user's turn, in training and evaluation alike."""
    return f"{problem.question}\n{problem.instruction}" if problem.instruction else problem.question


def _tiny(split: str, count: int, seed: int) -> list[Problem]:
    wording = random.Random(f"questions-{split}-{seed}")  # noqa: S311 - wording, not secrets
    reasoning = random.Random(f"solutions-{split}-{seed}")  # noqa: S311
    return [
        Problem(
            id=f"tiny-{chain.expression}",
            question=arithmetic.question(chain, wording),
            answer=str(chain.answer),
            level=f"{chain.level} operations",
            solution=arithmetic.reasoning(chain, reasoning),
        )
        for chain in islice(arithmetic.chains(split, seed), count)
    ]


def _from_row(row: object, path: Path, line: int) -> Problem:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
        raise MissingInputError(f"{path}:{line}: a problem needs a question and an answer")
    return Problem(
        id=str(row.get("id", f"{path.stem}-{line}")),
        question=row["question"],
        answer=str(row["answer"]),
        level=str(row.get("level", "")),
        solution=str(row.get("solution", "")),
    )
