"""Problem sets: questions with known answers, for rollouts and evaluations."""

import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from pipo_core.data.tiny import arithmetic
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import read_data
from pipo_core.recipes.common import Problems

_ROW_KEYS = ("id", "question", "answer", "instruction", "level", "solution")

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
            ``level``, ``solution`` and an ``instruction``.
        split: ``train`` or ``heldout``; a file has no splits and ignores it.
        count: number of problems; None for all rows of a file, or 500 tiny problems.
        seed: chooses the tiny problems; a file ignores it.

    Raises:
        MissingInputError: if the file cannot be read, is cut off or has too few problems; or for the first row without
            a question or an answer, or with a key that nothing reads, naming its line.
        UsageError: if the tiny world has fewer problems.
    """
    if source == "tiny":
        return _tiny_problems(split, 500 if count is None else count, seed)
    path = Path(source)
    problems = [_parse_problem_row(row, path, line) for line, row in read_data(path)]
    return first_problems(problems, path, count, "give a file with more rows")


def mathematics(chosen: Problems) -> list[Problem]:
    """Return the problems that a recipe chooses, whose answers are graded as mathematics.

    Raises:
        MissingInputError: if they cannot be read, or one of them has an answer that is no text.
        UsageError: if the tiny world has fewer problems.
    """
    problems = load_problems(chosen.source, chosen.split, chosen.count, chosen.seed)
    for problem in problems:
        if not isinstance(problem.answer, str):
            raise MissingInputError(
                f"{chosen.source}: problem {problem.id}: answers are graded as mathematics, so the right one must be a "
                f"text or a number, not {type(problem.answer).__name__}"
            )
    return problems


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


def first_problems(problems: list[Problem], path: Path, count: int | None, hint: str) -> list[Problem]:
    """Return the first ``count`` problems of a file, or all of them.

    Raises:
        MissingInputError: if there are fewer, or none, or two with the same id.
    """
    if not problems:
        raise MissingInputError(f"{path} holds no problems", hint=hint)
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise MissingInputError(f"{path}: two problems have the same id, {problem.id}")
        seen.add(problem.id)
    if count is not None and len(problems) < count:
        raise MissingInputError(
            f"{path} holds {len(problems)} problems, and the recipe asks for {count}",
            hint=f"{hint}, or use the problems that it has: problems.count={len(problems)}",
        )
    return problems[:count]


def text_of(value: object) -> str:
    """Return a text without surrounding blanks, or a whole number as text; an empty text for anything else."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _parse_problem_row(row: Mapping[str, Any], path: Path, line: int) -> Problem:
    where = f"{path}:{line}"
    unread = next((key for key, value in row.items() if value is not None and key not in _ROW_KEYS), None)
    if unread is not None:
        raise MissingInputError(f"{where}: nothing reads the key {unread!r} of a problem", hint="remove it")
    if re.search(r"[\ud800-\udfff]", json.dumps(row, ensure_ascii=False)):
        raise MissingInputError(f"{where}: half of a character (a lone surrogate), which no text can hold")
    question = row.get("question")
    if not isinstance(question, str) or not question.strip() or row.get("answer") is None:
        raise MissingInputError(f"{where}: a problem needs a question and an answer")
    texts = {key: "" if row.get(key) is None else row[key] for key in ("instruction", "solution")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise MissingInputError(f"{where}: the {key} of a problem is a text, not {text!r}")
    labels = {key: text_of(row[key]) for key in ("id", "level") if row.get(key) is not None}
    for key, label in labels.items():
        if not label:
            raise MissingInputError(f"{where}: the {key} of a problem is a text or a whole number, not {row[key]!r}")
    return Problem(
        id=labels.get("id", f"{path.stem}-{line}"),
        question=question,
        answer=_reference(row["answer"], where),
        level=labels.get("level", ""),
        **texts,
    )


def _reference(answer: object, where: str) -> Reference:
    """Return a row's answer: a number as a text, lists and objects as they are."""
    if isinstance(answer, list | dict):
        return answer
    text = repr(answer) if isinstance(answer, float) and math.isfinite(answer) else text_of(answer)
    if not text:
        raise MissingInputError(
            f"{where}: the answer of a problem is a text, a number, a list or an object, not {answer!r}"
        )
    return text
