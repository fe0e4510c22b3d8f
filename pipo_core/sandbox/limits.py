"""What a program may use, and how it ended."""

import math
from dataclasses import dataclass
from typing import Literal

MIB = 1 << 20

Reason = Literal["ok", "error", "signal", "time", "memory", "output"]
"""How a program ended: with exit status 0; with another one; by a signal; at its time limit; for want of memory; or
because it wrote too much."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a program may use.

    Attributes:
        seconds: of wall time, from the request to the program's end.
        memory: bytes of address space. A program is one process, so this bounds all that it can hold.
        threads: how many run at once, the first one included.
        output: bytes of standard output, and as many of standard error and of a function's value.
        open_files: descriptors open at once.
        work_bytes: size of the work directory. With 0 there is none, and no place to write a file to.
    """

    seconds: float = 6.0
    memory: int = 2048 * MIB
    threads: int = 64
    output: int = 16 * MIB
    open_files: int = 64
    work_bytes: int = 16 * MIB

    def __post_init__(self) -> None:
        """Refuse limits under which no program can run.

        Raises:
            ValueError: if one is too small or not finite.
        """
        least = {"seconds": 0.01, "memory": 64 * MIB, "threads": 1, "output": 1, "open_files": 16, "work_bytes": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {bound}, not {getattr(self, name)!r}")

    @property
    def cpu_seconds(self) -> int:
        """Seconds of processor time of all threads together; the kernel counts whole ones."""
        return math.ceil(self.seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it wrote.

    Attributes:
        stdout: what it wrote, up to the limit.
        stderr: the same of standard error.
        value: the JSON that stands for the value of the called function; None if no function was asked for.
        status: exit status; negative: the number of the signal that ended it. The sandbox's own kill is -9.
        reason: how it ended, in a word.
        seconds: wall time.
    """

    stdout: bytes
    stderr: bytes
    value: bytes | None
    status: int
    reason: Reason
    seconds: float
