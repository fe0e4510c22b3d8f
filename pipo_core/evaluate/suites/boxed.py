r"""Judging answers that are mathematics in a `\boxed{}`."""

from pipo_core.data.problems import Reference
from pipo_core.grade import MathGrader


class BoxedAnswers:
    """Judges the last box of a text by mathematical equality."""

    def __init__(self, grader: MathGrader) -> None:
        """Judge with `grader`; its owner closes it."""
        self._grader = grader

    def judge(self, text: str, reference: Reference) -> bool | None:
        r"""Return whether the last `\boxed{}` of `text` equals the answer; None if grading broke off."""
        return self._grader.grade(text, reference)
