r"""The tiny suite: held-out arithmetic problems, whose answer is the last `\boxed{}`."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.evaluate.suites.base import Suite
from pipo_core.evaluate.suites.boxed import BoxedAnswers
from pipo_core.grade import MathGrader
from pipo_core.recipes.evaluate import EvalRecipe


class TinySuite(BoxedAnswers):
    """Arithmetic problems that no training set of the tiny world contains."""

    name = "tiny"

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return held-out problems; 500 if the recipe states no number."""
        return load_problems("tiny", "heldout", recipe.problems.count, recipe.problems.seed)

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return one user turn, the same as in training."""
        return [{"role": "user", "content": user_message(problem)}]


@contextmanager
def open_tiny() -> Iterator[Suite]:
    """Yield the suite; leaving the context ends its grader."""
    with MathGrader() as grader:
        yield TinySuite(grader)
