r"""The math suite: AIME 2025, 30 questions with whole-number answers, asked as the paper's authors ask them.

Problems: the file `test.jsonl` of the hub's data set `math-ai/aime25`; its rows have `problem`, `answer` and `id`, all
text. Prompt: one user turn, the instruction of the authors' evaluation script (redai-infra/PIPO, `pipo/constants.py`)
and then the question. Grading needs a finished text and takes its last `\boxed{}`. The authors' script is less
strict: it also accepts answers without a box and grades texts that were cut off.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipo_core.data.problems import Problem, first_problems, text_of
from pipo_core.errors import MissingInputError
from pipo_core.evaluate.suites.base import Suite
from pipo_core.evaluate.suites.boxed import BoxedAnswers
from pipo_core.files import read_data
from pipo_core.grade import MAX_ANSWER_LENGTH, MathGrader
from pipo_core.recipes.evaluate import EvalRecipe

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


class MathSuite(BoxedAnswers):
    """Competition mathematics from a file of questions and answers."""

    name = "math"

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return the first problems of the benchmark, as many as the recipe asks for, or all.

        Raises:
            MissingInputError: if the file is cut off, has too few problems, or has a row that is not a problem.
        """
        path = Path(recipe.benchmark or "")
        problems = [_parse_benchmark_row(row, f"{path}:{number}") for number, row in read_data(path)]
        return first_problems(problems, path, recipe.problems.count, "download the file again")

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return one user turn: the instruction, a blank line, the question."""
        return [{"role": "user", "content": f"{INSTRUCTION}\n\n{problem.question}"}]


@contextmanager
def open_math() -> Iterator[Suite]:
    """Yield the suite; leaving the context ends its grader."""
    with MathGrader() as grader:
        yield MathSuite(grader)


def _parse_benchmark_row(row: Mapping[str, Any], where: str) -> Problem:
    """Return the problem of a row; ``where`` names the row in messages.

    Raises:
        MissingInputError: if the question, answer or id is absent or unusable.
    """
    question, answer, name = (row.get(key) for key in ("problem", "answer", "id"))
    if not isinstance(question, str) or not question.strip():
        raise MissingInputError(f"{where} has no problem (a text)")
    answer, name = text_of(answer), text_of(name)
    if not answer:
        raise MissingInputError(f"{where} has no answer (a text or a whole number)")
    if len(answer) > MAX_ANSWER_LENGTH:
        raise MissingInputError(f"{where}: an answer of {len(answer):,} characters cannot be graded")
    if not name:
        raise MissingInputError(f"{where} has no id (a text or a whole number)")
    return Problem(id=f"math-{name}", question=question, answer=answer)
