"""The process that runs math-verify: it reads JSON lines `{"answer", "gold", "seconds"}` and writes true or false.

`MathGrader` starts it by file path, so it imports nothing of pipo. A model wrote its input, which can be hostile:

- Time: each job arms a timer whose signal keeps its default action. So the kernel ends this process even inside a long
  multiplication in C, and even if the parent is gone. math-verify's own limit is off: its handler waits for the
  interpreter, and it would replace this timer.
- Memory: the address space is limited, so `10^{10^{10}}` raises a MemoryError.
- End of input, when the parent closes the pipe or dies, ends the process.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable

ADDRESS_SPACE = 2 << 30  # bytes
TOLERANCE = 5e-6
"""Relative difference up to which two numbers count as equal: that of six significant digits."""


def load_comparison() -> Callable[[str, str], bool]:
    """Import math-verify and return a function `(answer, gold)` that tells whether two expressions are equal."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    from sympy import Abs, Expr  # type: ignore[import-untyped]

    targets = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def are_finite(*values: Expr) -> bool:
        return all(value.is_number and value.is_finite is not False for value in values)

    def are_equal(answer: str, gold: str) -> bool:
        reference, given = (
            parse(f"\\boxed{{{text}}}", extraction_config=targets, parsing_timeout=None) for text in (gold, answer)
        )
        # math-verify rounds to six decimal places, and then all very small numbers are zero.
        left, right = (next((one for one in found if isinstance(one, Expr)), None) for found in (reference, given))
        if left is not None and right is not None and are_finite(left, right):
            largest = max(Abs(left).evalf(), Abs(right).evalf())
            if Abs(left - right).evalf() > TOLERANCE * largest:
                return False
        return bool(verify(reference, given, timeout_seconds=None))

    return are_equal


def main() -> None:
    """Write `"ready"`, then answer jobs until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    are_equal = load_comparison()
    replies.write('"ready"\n')
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        try:
            equal = are_equal(job["answer"], job["gold"])
        except Exception:  # noqa: BLE001 - any error of the parser on hostile text means: not shown to be equal
            equal = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write("true\n" if equal else "false\n")


if __name__ == "__main__":
    main()
