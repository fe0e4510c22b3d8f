"""Opens the grader that a suite names."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipo_core.data.grading import Judge
from pipo_core.grade import CodeGrader, InstructionGrader, LetterGrader, MathGrader
from pipo_core.recipes import suite as settings


@contextmanager
def open_judge(grader: settings.GraderSettings, workers: int) -> Iterator[Judge]:
    """Yield what judges answers; leaving the context ends its processes.

    Args:
        grader: which one, and its settings.
        workers: programs that are tested at once.

    Raises:
        MachineError: if a library is missing, or programs cannot be isolated here.
    """
    match grader:
        case settings.BoxedGrader():
            with MathGrader() as mathematics:
                yield mathematics.grade
        case settings.LetterGrader():
            yield LetterGrader(grader.forms, text_counts=grader.text_counts).grade
        case settings.InstructionsGrader():
            with InstructionGrader() as instructions:
                yield instructions.grade
        case settings.CodeGrader():
            with CodeGrader(workers, grader.seconds, int(grader.memory_gib * 2**30)) as code:
                yield code.grade
