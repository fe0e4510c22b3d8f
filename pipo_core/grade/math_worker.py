"""What `worker_process.py` runs for `MathGrader`: math-verify, for jobs `{"answer", "gold"}`."""

from collections.abc import Callable, Mapping
from typing import Any

TOLERANCE = 5e-6
"""Relative difference up to which two numbers count as equal: that of six significant digits."""


def load() -> Callable[[Mapping[str, Any]], bool]:
    """Import math-verify and return a function that tells whether a job's two expressions are equal.

    math-verify's own time limit is off: its handler waits for the interpreter, and would replace the process's timer.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    from sympy import Abs, Expr  # type: ignore[import-untyped]

    targets = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def are_finite(*values: Expr) -> bool:
        return all(value.is_number and value.is_finite is not False for value in values)

    def are_equal(answer: str, gold: str) -> bool:
        reference, given = (
            parse(f"\\boxed{{{text}}}", extraction_config=targets, parsing_timeout=None) for text in (gold, answer)
        )
        # math-verify rounds to six decimal places, and then all very small numbers are zero. Percentages are left to
        # it: to it 50 % equals both 50 and 1/2, and it does not evaluate them.
        left, right = (next((one for one in found if isinstance(one, Expr)), None) for found in (reference, given))
        percent = "%" in answer + gold
        if not percent and left is not None and right is not None and are_finite(left, right):
            largest = max(Abs(left).evalf(), Abs(right).evalf())
            if Abs(left - right).evalf() > TOLERANCE * largest:
                return False
        return bool(verify(reference, given, timeout_seconds=None))

    def compare(job: Mapping[str, Any]) -> bool:
        try:
            return are_equal(job["answer"], job["gold"])
        except Exception:  # noqa: BLE001 - any error of the parser on hostile text means: not shown to be equal
            return False

    return compare
