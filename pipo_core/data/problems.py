"""Problem sets: questions with known answers, for rollouts and evaluations."""

import json
import math
import random
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from pipo_core.data.columns import mapped_rows
from pipo_core.data.questions import shard_of
from pipo_core.data.tables import TableRow, read_table
from pipo_core.data.tiny import arithmetic, functions
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.recipes.problems import GENERATED, INSTRUCTION, QUESTION, Problems
from pipo_core.recipes.rollout import GraderName

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
        prompt: the whole text of the user's turn; empty for the question with the instruction behind it.
    """

    id: str
    question: str
    answer: Reference
    level: str = ""
    instruction: str = ""
    solution: str = ""
    prompt: str = ""


def load_problems(
    source: str,
    split: str,
    count: int | None,
    seed: int,
    *,
    form: Problems | None = None,
    shard: tuple[int, int] = (0, 1),
    answered: bool = True,
) -> list[Problem]:
    """Return the problems of a source.

    Args:
        source: a name of `GENERATED`, or a file or folder as `tables.read_table` reads it. Without ``form.columns`` its
            rows have ``question`` and ``answer`` and, if known, ``id``, ``level``, ``solution``, ``instruction``.
        split: ``train`` or ``heldout``; a file has no splits and ignores it.
        count: number of problems, the first ones; None for all rows of a file, or 500 generated problems.
        seed: chooses the generated problems; a file ignores it.
        form: how rows become problems: columns, which rows, what is taken off a question, and the prompt.
        shard: of those problems only the ones of this shard: its number and the number of shards.
        answered: whether a problem needs an answer.

    Raises:
        MissingInputError: if the file cannot be read, is cut off or has too few problems; or for the first row without
            a question or an answer, or with a key that nothing reads, or without a column, naming its place.
        UsageError: if fewer problems can be generated.
        MachineError: if the file is parquet and pyarrow is not installed.
    """
    form = form or Problems()
    index, shards = shard

    def ours(problem: Problem) -> bool:
        return shards == 1 or shard_of(problem.question, shards) == index

    if source in GENERATED:
        problems = _generated(source, split, 500 if count is None else count, seed)
        return [_with_prompt(problem, form.prompt) for problem in problems if ours(problem)]
    path = Path(source)
    rows = read_table(path) if form.columns is None else mapped_rows(path, form, form.columns)
    read = (_parse_problem_row(row, answered=answered) for row in rows)
    kept = []
    seen: set[str] = set()
    # Problems of other shards are counted and forgotten: all tests of a set of programming problems take gigabytes.
    for problem in islice(read, count):
        _require_new_id(problem, seen, path)
        if ours(problem):
            kept.append(_with_prompt(problem, form.prompt))
    _require_enough(len(seen), path, count, "give a file with more rows")
    return kept


def gradable(chosen: Problems, grader: GraderName, shard: tuple[int, int] = (0, 1)) -> list[Problem]:
    """Return the problems that a rollout asks, with answers that its grader can use.

    Args:
        chosen: the recipe's problems.
        grader: the recipe's grader.
        shard: as in `load_problems`.

    Raises:
        MissingInputError: if they cannot be read, or one of them has an answer of another form.
        UsageError: if fewer problems can be generated.
        MachineError: if the file is parquet and pyarrow is not installed.
    """
    problems = load_problems(
        chosen.source, chosen.split, chosen.count, chosen.seed, form=chosen, shard=shard, answered=grader != "none"
    )
    for problem in problems:
        if grader == "boxed" and not isinstance(problem.answer, str):
            raise MissingInputError(
                f"{chosen.source}: problem {problem.id}: answers are graded as mathematics, so the right one must be a "
                f"text or a number, not {type(problem.answer).__name__}"
            )
        if grader == "code" and not _has_tests(problem.answer):
            raise MissingInputError(
                f"{chosen.source}: problem {problem.id}: answers are graded as programs, so the right one must be an "
                'object with tests: a list of {"input": text, "output": text}'
            )
    return problems


def _has_tests(answer: Reference) -> bool:
    tests = answer.get("tests") if isinstance(answer, dict) else None
    return (
        isinstance(tests, list)
        and bool(tests)
        and all(
            isinstance(test, dict) and isinstance(test.get("input"), str) and isinstance(test.get("output"), str)
            for test in tests
        )
    )


def _with_prompt(problem: Problem, prompt: str | None) -> Problem:
    if prompt is None:
        return problem
    # Split first: a question may hold what stands for an instruction.
    before, after = (part.replace(INSTRUCTION, problem.instruction) for part in prompt.split(QUESTION, 1))
    return replace(problem, prompt=f"{before}{problem.question}{after}")


def user_message(problem: Problem) -> str:
    """Return the text of the user's turn, the same in training and evaluation."""
    if problem.prompt:
        return problem.prompt
    return f"{problem.question}\n{problem.instruction}" if problem.instruction else problem.question


def _generated(source: str, split: str, count: int, seed: int) -> list[Problem]:
    wording = random.Random(f"questions-{split}-{seed}")  # noqa: S311 - wording, not secrets
    reasoning = random.Random(f"solutions-{split}-{seed}")  # noqa: S311
    if source == "tiny-code":
        problems = [
            Problem(
                id=f"tiny-code-{program.name}",
                question=functions.question(program, wording),
                answer=functions.reference(program),
                level=f"{program.level} operations",
                solution=functions.solution(program, reasoning),
            )
            for program in islice(functions.programs(split, seed), count)
        ]
    else:
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
    seen: set[str] = set()
    for problem in problems:
        _require_new_id(problem, seen, path)
    _require_enough(len(problems), path, count, hint)
    return problems[:count]


def _require_new_id(problem: Problem, seen: set[str], path: Path) -> None:
    if problem.id in seen:
        raise MissingInputError(
            f"{path}: two problems have the same id, {problem.id}",
            hint="give each problem an id of its own, and of repeated rows keep one",
        )
    seen.add(problem.id)


def _require_enough(found: int, path: Path, count: int | None, hint: str) -> None:
    if not found:
        raise MissingInputError(f"{path} holds no problems", hint=hint)
    if count is not None and found < count:
        raise MissingInputError(
            f"{path} holds {found} problems, and the recipe asks for {count}",
            hint=f"{hint}, or use the problems that it has: problems.count={found}",
        )


def text_of(value: object) -> str:
    """Return a text without surrounding blanks, or a whole number as text; an empty text for anything else."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _parse_problem_row(row: TableRow, *, answered: bool) -> Problem:
    values, where = row.values, row.where
    unread = next((key for key, value in values.items() if value is not None and key not in _ROW_KEYS), None)
    if unread is not None:
        hint = "remove it, or say by problems.columns which of the file's columns are read"
        raise MissingInputError(f"{where}: nothing reads the key {unread!r} of a problem", hint=hint)
    try:
        text = json.dumps(values, ensure_ascii=False)
    except TypeError as error:
        raise MissingInputError(f"{where}: a value that JSON does not have: {error}") from error
    if re.search(r"[\ud800-\udfff]", text):
        raise MissingInputError(f"{where}: half of a character (a lone surrogate), which no text can hold")
    question, answer = values.get("question"), values.get("answer")
    if not isinstance(question, str) or not question.strip() or (answered and answer is None):
        raise MissingInputError(f"{where}: a problem needs a question{' and an answer' if answered else ''}")
    texts = {key: "" if values.get(key) is None else values[key] for key in ("instruction", "solution")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise MissingInputError(f"{where}: the {key} of a problem is a text, not {text!r}")
    labels = {key: text_of(values[key]) for key in ("id", "level") if values.get(key) is not None}
    for key, label in labels.items():
        if not label:
            raise MissingInputError(f"{where}: the {key} of a problem is a text or a whole number, not {values[key]!r}")
    return Problem(
        id=labels.get("id", row.name),
        question=question,
        answer="" if answer is None else _reference(answer, where),
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
