"""Graders: decide whether a model's text is right by a reference answer."""

from pipo_core.grade.code import CodeGrader
from pipo_core.grade.instructions import InstructionGrader
from pipo_core.grade.letters import Form, LetterGrader
from pipo_core.grade.math import MAX_ANSWER_LENGTH, MathGrader, extract_boxed

__all__ = [
    "MAX_ANSWER_LENGTH",
    "CodeGrader",
    "Form",
    "InstructionGrader",
    "LetterGrader",
    "MathGrader",
    "extract_boxed",
]
