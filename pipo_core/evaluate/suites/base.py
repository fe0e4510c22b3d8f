"""What a benchmark is to the runner."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from pipo_core.data.problems import Problem, Reference
from pipo_core.recipes.evaluate import EvalRecipe


class Suite(Protocol):
    """Problems, how they are asked, and how an answer is judged."""

    name: str

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return the problems that the recipe asks for, each with an id of its own; the same ones in every call.

        `recipe.benchmark` is a path on this disk. Raises MissingInputError where it does not hold them.
        """
        ...

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return the chat messages that ask the problem."""
        ...

    def judge(self, text: str, reference: Reference) -> bool | None:
        """Whether `text`, what the model wrote after the prompt, is right by a problem's reference answer.

        None if grading broke off.
        """
        ...


SuiteOpener: TypeAlias = Callable[[], AbstractContextManager[Suite]]
"""A suite may own processes (graders), so it is opened and closed."""
