r"""The math suite: AIME 2025, 30 questions with whole-number answers, asked as the paper's authors ask them.

Problems: the file `test.jsonl` of the hub's data set `math-ai/aime25`, rows of `problem`, `answer` and `id`, all text.
Prompt: one user turn with the instruction of the authors' evaluation script (redai-infra/PIPO, `pipo/constants.py`)
above the question. Grading is stricter than theirs, which also takes an answer from a text without a box, and grades
texts that were cut off: here the last `\boxed{}` of a finished text counts.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipo_core.data.problems import Problem
from pipo_core.errors import MissingInputError
from pipo_core.evaluate.suites.base import Suite
from pipo_core.evaluate.suites.boxed import BoxedAnswers
from pipo_core.files import read_jsonl
from pipo_core.grade import LONGEST_ANSWER, MathGrader
from pipo_core.recipes.evaluate import EvalRecipe

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


class MathSuite(BoxedAnswers):
    """Competition mathematics from a file of questions and answers."""

    name = "math"

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return the benchmark's problems, or its first ones.

        Raises MissingInputError where the file has fewer than the recipe asks for, or none, is cut off, or has a row
        that is no problem.
        """
        path = Path(recipe.benchmark or "")
        rows = read_jsonl(path)
        problems = [_problem(row, f"{path}: row {number}") for number, row in enumerate(rows, start=1)]
        lines = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
        if lines > len(rows):
            raise MissingInputError(f"{path}: the last row is cut off", hint="get the file anew")
        if not problems:
            raise MissingInputError(f"{path} holds no problems", hint="get the file anew")
        if len({problem.id for problem in problems}) < len(problems):
            raise MissingInputError(f"{path}: two problems have the same id")
        count = recipe.problems.count or len(problems)
        if len(problems) < count:
            raise MissingInputError(
                f"{path} holds {len(problems)} problems, and the recipe asks for {count}",
                hint=f"get the file anew, or take what there is: problems.count={len(problems)}",
            )
        return problems[:count]

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return one user turn: the instruction, a blank line, the question."""
        return [{"role": "user", "content": f"{INSTRUCTION}\n\n{problem.question}"}]


@contextmanager
def open_math() -> Iterator[Suite]:
    """Yield the suite; its grader lives as long as the context."""
    with MathGrader() as grader:
        yield MathSuite(grader)


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    """Return the problem in a row. Raises MissingInputError where it has no question, answer or id to use."""
    question, answer, name = (row.get(key) for key in ("problem", "answer", "id"))
    if not isinstance(question, str) or not question.strip():
        raise MissingInputError(f"{where} has no problem (a text)")
    answer, name = _word(answer), _word(name)
    if not answer:
        raise MissingInputError(f"{where} has no answer (a text or a whole number)")
    if len(answer) > LONGEST_ANSWER:
        raise MissingInputError(f"{where}: an answer of {len(answer):,} characters cannot be graded")
    if not name:
        raise MissingInputError(f"{where} has no id (a text or a whole number)")
    return Problem(id=f"math-{name}", question=question, answer=answer)


def _word(value: object) -> str:
    """Return a text, stripped, or a whole number as text; empty for anything else."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
