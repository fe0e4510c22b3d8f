r"""The tiny suite: held-out arithmetic problems in the paper's prompt style, the last `\boxed{}` graded."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.evaluate.suites.base import Suite
from pipo_core.grade import MathGrader


class TinySuite:
    """Arithmetic that no training set of the tiny world can hold."""

    name = "tiny"

    def __init__(self, grader: MathGrader) -> None:
        """Use `grader`, which its owner closes."""
        self._grader = grader

    def problems(self, count: int, seed: int) -> list[Problem]:
        """Return `count` held-out problems."""
        return load_problems("tiny", "heldout", count, seed)

    def prompt(self, problem: Problem) -> list[dict[str, str]]:
        """Return the one user turn that training uses, too."""
        return [{"role": "user", "content": user_message(problem)}]

    def grade(self, problem: Problem, text: str) -> bool:
        r"""Whether the last `\boxed{}` of `text` equals the answer."""
        return self._grader.grade(text, problem.answer)

    @property
    def undecided(self) -> int:
        """Answers so far that count as wrong because their grading broke off."""
        return self._grader.undecided


@contextmanager
def open_tiny() -> Iterator[Suite]:
    """Yield the suite; its grader lives as long as the context."""
    with MathGrader() as grader:
        yield TinySuite(grader)
