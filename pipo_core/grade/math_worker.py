"""The process in which math-verify runs: one JSON line `{"answer", "gold", "seconds"}` in, one JSON line out.

It is started by file path (`MathGrader` does it), so it imports nothing of pipo. Its input is hostile: a
model wrote it.

- Time: before each job a timer is armed whose signal has its default action, so the kernel ends this process
  even inside a long multiplication in C, and even when the parent is gone. math-verify's own limit cannot do
  that (its handler waits for the interpreter) and would take the timer over, so it is off.
- Memory: the address space is capped; `10^{10^{10}}` ends in a MemoryError.
- End of input (the parent closed the pipe or died) ends the process.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable

ADDRESS_SPACE = 2 << 30  # bytes


def load_judge() -> Callable[[str, str], bool]:
    """Import math-verify and return `judge(answer, gold)`: whether the two expressions are equal."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    targets = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def judge(answer: str, gold: str) -> bool:
        reference, given = (
            parse(f"\\boxed{{{text}}}", extraction_config=targets, parsing_timeout=None) for text in (gold, answer)
        )
        return bool(verify(reference, given, timeout_seconds=None))

    return judge


def main() -> None:
    """Say `ready`, then answer jobs until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints must not look like a reply
    judge = load_judge()
    replies.write('"ready"\n')
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        try:
            equal = judge(job["answer"], job["gold"])
        except Exception:  # noqa: BLE001 - whatever a parser raises on hostile text means "not shown equal"
            equal = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write("true\n" if equal else "false\n")


if __name__ == "__main__":
    main()
