"""What a benchmark is to the runner."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from pipo_core.data.problems import Problem


class Suite(Protocol):
    """Problems, how they are asked, and how an answer is judged."""

    name: str

    def problems(self, count: int, seed: int) -> list[Problem]:
        """Return `count` problems; the same seed gives the same ones in the same order."""
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
