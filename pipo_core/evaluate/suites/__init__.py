"""Suites as files say them: their questions as prompts with references, and the graders that judge the answers."""

from pipo_core.evaluate.suites.graders import open_judge
from pipo_core.evaluate.suites.questions import Questions, bare_questions, load_questions

__all__ = ["Questions", "bare_questions", "load_questions", "open_judge"]
