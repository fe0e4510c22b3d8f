r"""What suites share whose answers are mathematics in a `\boxed{}`."""

from pipo_core.data.problems import Reference
from pipo_core.grade import MathGrader


class BoxedAnswers:
    """Grades the last box of a text by mathematical equality."""

    def __init__(self, grader: MathGrader) -> None:
        """Use `grader`, which its owner closes."""
        self._grader = grader

    def judge(self, text: str, reference: Reference) -> bool | None:
        r"""Whether the last `\boxed{}` of `text` equals the answer; None if grading broke off."""
        return self._grader.grade(text, reference)
