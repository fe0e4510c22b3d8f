r"""The tiny suite: held-out arithmetic problems in the paper's prompt style, the last `\boxed{}` graded."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.evaluate.suites.base import Suite
from pipo_core.evaluate.suites.boxed import BoxedAnswers
from pipo_core.grade import MathGrader
from pipo_core.recipes.evaluate import EvalRecipe


class TinySuite(BoxedAnswers):
    """Arithmetic that no training set of the tiny world can hold."""

    name = "tiny"

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return held-out problems, 500 where the recipe does not say how many."""
        return load_problems("tiny", "heldout", recipe.problems.count, recipe.problems.seed)

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return the one user turn that training uses, too."""
        return [{"role": "user", "content": user_message(problem)}]


@contextmanager
def open_tiny() -> Iterator[Suite]:
    """Yield the suite; its grader lives as long as the context."""
    with MathGrader() as grader:
        yield TinySuite(grader)
