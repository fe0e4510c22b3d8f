r"""What suites share whose answers are mathematics in a `\boxed{}`."""

from pipo_core.data.problems import Problem
from pipo_core.grade import MathGrader


class BoxedAnswers:
    """Grades the last box of a text by mathematical equality."""

    def __init__(self, grader: MathGrader) -> None:
        """Use `grader`, which its owner closes."""
        self._grader = grader

    def grade(self, problem: Problem, text: str) -> bool:
        r"""Whether the last `\boxed{}` of `text` equals the answer."""
        return self._grader.grade(text, problem.answer)

    @property
    def undecided(self) -> int:
        """Answers so far that count as wrong because their grading broke off."""
        return self._grader.undecided
