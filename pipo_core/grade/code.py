"""Grade programs: run the last code block of a text against tests, in a sandbox.

Expected outputs never enter the sandbox: a program can print what it likes, and it is compared here. So the worst that
an answer can do to its own grading is to be graded wrong.
"""

import contextlib
import re
import threading
from types import TracebackType
from typing import Self

from pipo_core.errors import MachineError
from pipo_core.grade.code_reference import CodeReference, CodeTest, read_reference
from pipo_core.grade.programs import extract_program, same_text, same_value
from pipo_core.machine import cores
from pipo_core.sandbox import Limits, Outcome, Sandbox, SandboxFailure, check_sandbox

TEST_SECONDS = 6.0
"""LiveCodeBench's limit for a test."""
CHECKER_SECONDS = 10.0
_CHECKER_BYTES = 64 << 20
_ATTEMPTS = 2

_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json"),
)
PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in (*_MODULES, "builtins", "typing")),
        *(f"import {name}" for name in _MODULES),
        "sys.setrecursionlimit(50000)",
    ]
)
"""What LiveCodeBench puts before every program, in its order: later names replace earlier ones of the same name."""

_NUMPY = re.compile(r"\bnumpy\b")
_LOAD_NUMPY = "\ntry:\n    __import__('numpy')\nexcept ImportError:\n    pass"
_RIGHT, _WRONG = {"1", "1.0", "true", "right"}, {"0", "0.0", "false", "wrong"}
_CHECKER_FILES = ("input.txt", "correct_output.txt", "solution_output.txt")


class CodeGrader:
    """Grades texts against tests; a context manager, like `MathGrader`.

    Calls from several threads run at once, up to `workers` of them. No text makes the grader raise or hang.
    """

    def __init__(self, workers: int | None = None, seconds: float = TEST_SECONDS, memory: int = 2 << 30) -> None:
        """Set the limits.

        Args:
            workers: programs that run at once; by default one for each core.
            seconds: of wall and processor time for each test.
            memory: bytes for each program.
        """
        self.limits = Limits(seconds=seconds, memory=memory, work_bytes=0)
        self._slots = threading.BoundedSemaphore(workers or cores())
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        """Return the grader once a sandbox has been tried.

        Raises:
            MachineError: if this machine cannot isolate programs.
        """
        check_sandbox()
        self._leaving.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let grading that still goes on in other threads end with the test that it runs."""
        self._leaving.set()

    def grade(self, text: str, answer: object) -> bool | None:
        """Return whether the last code block of `text` passes all tests of `answer`.

        Args:
            text: what a model wrote.
            answer: the reference answer, as `read_reference` takes it.

        Returns:
            The verdict; None if the sandbox broke off.

        Raises:
            TypeError: if the reference answer has a part of the wrong type.
            ValueError: if the reference answer cannot be read, or its checker fails on its own expected output.
            MachineError: if this machine cannot isolate programs.
        """
        reference = read_reference(answer)
        program = extract_program(text)
        if program is None:
            return False
        with self._slots:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(SandboxFailure):
                    return self._passes(program, reference)
            return False if not self._leaving.is_set() and _sandbox_works() else None

    def _passes(self, program: str, reference: CodeReference) -> bool:
        """Return whether a program passes all tests; the first failure ends the run."""
        prelude = PRELUDE + (_LOAD_NUMPY if _NUMPY.search(program) else "")
        with (
            Sandbox(self.limits, prelude=prelude) as sandbox,
            Sandbox(Limits(seconds=CHECKER_SECONDS, work_bytes=_CHECKER_BYTES)) as checkers,
        ):
            for test in reference.tests:
                if self._leaving.is_set():
                    raise SandboxFailure("grading was left")
                outcome = sandbox.run(program, test.given, function=reference.function)
                if outcome.reason != "ok" or not _is_right(outcome, test, reference, checkers):
                    return False
        return True


def _is_right(outcome: Outcome, test: CodeTest, reference: CodeReference, checkers: Sandbox) -> bool:
    """Return whether a test's outcome is right: as a value, as a text, or by the problem's checker."""
    if reference.function is not None:
        return same_value(outcome.value or b"", test.expected)
    output = outcome.stdout.decode("utf-8", "replace")
    if same_text(output, test.expected):
        return True
    if reference.checker is None:
        return False
    verdict = _ask_checker(reference.checker, test, outcome.stdout, checkers)
    if verdict is None and not _ask_checker(
        reference.checker, test, test.expected.encode("utf-8", "replace"), checkers
    ):
        raise ValueError("the reference answer's checker does not accept its own expected output")
    return verdict is True


def _ask_checker(checker: str, test: CodeTest, output: bytes, checkers: Sandbox) -> bool | None:
    """Return a checker's verdict on an output; None if it fails.

    A checker is called as those of the Codeforces data sets are: with the paths of three files, the test's input, the
    expected output and the output in question. It prints 1 or 0, or one of the words true, right, false and wrong.
    """
    contents = (test.given.encode("utf-8", "replace"), test.expected.encode("utf-8", "replace"), output)
    files = dict(zip(_CHECKER_FILES, contents, strict=True))
    outcome = checkers.run(checker, files=files, arguments=_CHECKER_FILES)
    word = outcome.stdout.decode("utf-8", "replace").strip().lower()
    if outcome.reason != "ok" or word not in _RIGHT | _WRONG:
        return None
    return word in _RIGHT


def _sandbox_works() -> bool:
    """Return whether a sandbox still runs a harmless program: if so, a failure was the other program's doing."""
    try:
        with Sandbox() as sandbox:
            return sandbox.run("print(1)").stdout == b"1\n"
    except MachineError:
        return False
