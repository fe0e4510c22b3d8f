"""Graders: from a model's text and a reference answer to right or wrong."""

from pipo_core.grade.math import LONGEST_ANSWER, MathGrader, extract_boxed

__all__ = ["LONGEST_ANSWER", "MathGrader", "extract_boxed"]
