"""The protocol of a benchmark."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from pipo_core.data.problems import Problem, Reference
from pipo_core.recipes.evaluate import EvalRecipe


class Suite(Protocol):
    """A benchmark: its problems, how they are asked, and how an answer is judged."""

    name: str

    def problems(self, recipe: EvalRecipe) -> list[Problem]:
        """Return the problems that the recipe asks for, with distinct ids; every call returns the same ones.

        Args:
            recipe: its `benchmark` is a path on this disk, or None.

        Raises:
            MissingInputError: if the file does not hold the problems.
        """
        ...

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return the chat messages that ask the problem."""
        ...

    def judge(self, text: str, reference: Reference) -> bool | None:
        """Return whether `text`, which the model wrote after the prompt, is right; None if grading broke off."""
        ...


SuiteOpener: TypeAlias = Callable[[], AbstractContextManager[Suite]]
"""Opens a suite; closing the context ends the processes that the suite owns."""
