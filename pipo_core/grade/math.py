r"""Grading mathematics: the last `\boxed{…}` of a text against a reference answer.

Equal strings and plain integers are decided here at once. Everything else goes to math-verify in a process of
its own (`math_worker.py`) with a deadline, because a symbolic comparison of what a model wrote may take for
ever or all memory. A worker that exceeds its deadline or dies is ended and replaced, and that answer is
undecided.
"""

import json
import re
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pipo_core.errors import MachineError

LONGEST_ANSWER = 2_000
"""Characters. No reference answer of a benchmark comes near; a longer one is wrong without being parsed."""

START_SECONDS = 120.0
"""How long the worker may take to import math-verify (about one second on an idle machine)."""

KILL_GRACE = 1.0
"""Seconds after the worker's own deadline at which it is killed from outside (a stopped process has no
alarm)."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*")
_BARE = re.compile(r"[^\s$]+")
_INTEGER = re.compile(r"([+-]?)([0-9]+)")
_DIGIT_GAP = re.compile(r"(?<=[0-9])\\[,!;: ](?=[0-9]{3}(?![0-9]))")
_WHITE = re.compile(r"[\s\x00-\x1f]+")
_SAME = (("\N{MINUS SIGN}", "-"), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"))


def extract_boxed(text: str) -> str | None:
    r"""Return what stands in the last `\boxed{…}` or `\fbox{…}` of `text`: braces matched, stripped.

    `\boxed 7` gives `7`. None where there is no box, or where the last one is not closed (a text cut short
    has not given its answer, whatever it boxed on the way). Time is linear in the length of the text.
    """
    last = deque(_BOX.finditer(text), maxlen=1)
    if not last:
        return None
    box = last[0]
    if not text.startswith("{", box.end()):
        bare = _BARE.match(text, box.end())
        return bare.group().rstrip(".,;:") if bare else None
    depth, position, first = 0, box.end(), box.end() + 1
    while position < len(text):
        character = text[position]
        if character == "\\":  # an escaped brace is text
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[first:position].strip()
        position += 1
    return None


def _normal(answer: str) -> str:
    """One spelling for what differs only in layout: blanks, dollar signs, a full stop, spaced thousands."""
    answer = _WHITE.sub(" ", answer).strip().removesuffix(".").strip()
    if len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer.strip("$").strip()
    for other, usual in _SAME:
        answer = answer.replace(other, usual)
    return _DIGIT_GAP.sub("", answer)


def _decide(answer: str, gold: str) -> bool | None:
    """Settle two normalised answers without a parser: True, False, or None where that takes mathematics."""
    if not answer or not gold or max(len(answer), len(gold)) > LONGEST_ANSWER:
        return False
    if answer == gold:
        return True
    integers = [_INTEGER.fullmatch(text) for text in (answer, gold)]
    if integers[0] and integers[1]:
        (sign, digits), (gold_sign, gold_digits) = (
            (match[1] == "-", match[2].lstrip("0")) for match in integers if match
        )
        return digits == gold_digits and (sign == gold_sign or not digits)
    return None


class _Worker:
    """One running `math_worker.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -P: the worker's folder holds a math.py, which must not shadow the standard library's
            [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            process_group=0,  # a Ctrl-C at the terminal is the parent's to handle
        )
        if self._reply(None, START_SECONDS) != "ready":
            self.close()
            raise MachineError(
                "the grading process did not start: math-verify cannot be imported",
                hint="pip install 'math-verify>=0.9'",
            )

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        return self._process.stdin, self._process.stdout

    def _reply(self, line: str | None, seconds: float) -> object:
        """Write `line`, return the decoded reply; None if the worker dies, or is killed after `seconds`."""
        entry, answer = self._pipes()
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            if line is not None:
                entry.write(line)
                entry.flush()
            reply = answer.readline()
        except OSError:  # a pipe without a reader
            return None
        finally:
            timer.cancel()
            timer.join()  # a kill that is under way belongs to this job, not to the next
        return json.loads(reply) if reply.endswith("\n") else None

    def judge(self, answer: str, gold: str, seconds: float) -> bool | None:
        """Whether the two are equal; None if the worker did not live to tell."""
        job = json.dumps({"answer": answer, "gold": gold, "seconds": seconds})
        verdict = self._reply(job + "\n", seconds + KILL_GRACE)
        return verdict if isinstance(verdict, bool) else None

    def close(self) -> None:
        """End the process and collect it."""
        self._process.kill()
        for pipe in self._pipes():
            try:
                pipe.close()
            except OSError:  # unwritten bytes of a job whose reader is dead
                continue
        self._process.wait()


class MathGrader:
    r"""Grades texts against reference answers; a context manager, for it may own a process.

    The process starts at the first answer that needs mathematics and ends with the context. Calls from
    several threads are served one after another. Raises MachineError if math-verify cannot be loaded; no text
    makes it raise or hang.
    """

    def __init__(self, deadline: float = 5.0) -> None:
        """`deadline`: seconds that one answer may take."""
        self.deadline = deadline
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the grader itself; nothing starts yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker, if there is one."""
        self.close()

    def close(self) -> None:
        """End the worker, if there is one. The grader can be used again."""
        with self._lock:
            self._stop()

    def grade(self, text: str, answer: object) -> bool | None:
        r"""Whether the last box of `text` holds what equals `answer` (bare, or itself in a box).

        Returns:
            None if the worker exceeded the deadline or died before it could tell.

        Raises:
            TypeError: for a reference answer that is not a text.
        """
        if not isinstance(answer, str):
            raise TypeError(f"mathematics is graded against a text, not against {answer!r}")
        given = extract_boxed(text)
        if given is None:
            return False
        boxed = extract_boxed(answer)
        given, gold = _normal(given), _normal(answer if boxed is None else boxed)
        decided = _decide(given, gold)
        return self._ask_worker(given, gold) if decided is None else decided

    def _ask_worker(self, given: str, gold: str) -> bool | None:
        with self._lock:
            if self._worker is None:
                self._worker = _Worker()
            verdict = None
            try:
                verdict = self._worker.judge(given, gold, self.deadline)
            finally:  # also when interrupted: a reply that nobody read must not answer the next question
                if verdict is None:
                    self._stop()
        return verdict

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
