"""What a benchmark is to the runner."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from pipo_core.data.problems import Problem
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

    def grade(self, problem: Problem, text: str) -> bool:
        """Whether `text`, what the model wrote after the prompt, solves the problem."""
        ...

    @property
    def undecided(self) -> int:
        """Answers so far that count as wrong because their grading broke off."""
        ...


SuiteOpener: TypeAlias = Callable[[], AbstractContextManager[Suite]]
"""A suite may own processes (graders), so it is opened and closed."""
