r"""Grade mathematics: compare the last `\boxed{…}` of a text with a reference answer.

Equal strings and plain integers are decided here at once. Everything else goes to math-verify in a separate process
(`math_worker.py`) with a deadline, because comparing hostile expressions can take unlimited time or memory. If the
worker exceeds the deadline or dies, it is replaced and the answer is undecided.
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

MAX_ANSWER_LENGTH = 2_000
"""Characters. A longer answer is wrong and is not parsed; reference answers of benchmarks are far shorter."""

START_SECONDS = 120.0
"""The worker may take this long to import math-verify (about one second on an idle machine)."""

KILL_GRACE = 1.0
"""Seconds after its own deadline at which the worker is killed from outside, since a stopped process gets no alarm."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*(?:\r?\n[ \t]*(?=\{))?")
_BARE = re.compile(r"[^\s$]+")
_INTEGER = re.compile(r"([+-]?)([0-9]+)")
_DIGIT_GAP = re.compile(r"(?<=[0-9])(?:\\[,!;: ]|~|\{,\})(?=[0-9]{3}(?![0-9]))")
_EMPHASIS = re.compile(r"(\*\*|__|`)(.+)\1")
_ELLIPSIS = re.compile(r"\\(?:[lc]?dots|dots[a-z]*|hdots)(?![A-Za-z])|\N{HORIZONTAL ELLIPSIS}|\.\.\.+")
_WHITE = re.compile(r"[\s\x00-\x1f]+")
_SAME = (("\N{MINUS SIGN}", "-"), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"))


def extract_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{…}` or `\fbox{…}` of `text`, stripped; None if there is none.

    `\boxed 7` gives `7`. An unclosed last box gives None: a text that was cut off there has not given its answer.
    The time is linear in the length of the text.
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


def _normalise(answer: str) -> str:
    """Return the answer without what is layout: blanks, dollar signs, emphasis, a full stop, gaps in thousands."""
    answer = _ELLIPSIS.sub(r"\\ldots ", answer)
    answer = _WHITE.sub(" ", answer).strip().removesuffix(".").strip()
    if emphasised := _EMPHASIS.fullmatch(answer):
        answer = emphasised[2].strip()
    if len(answer) > 1 and answer[0] == answer[-1] == "$":
        answer = answer.strip("$").strip()
    for other, usual in _SAME:
        answer = answer.replace(other, usual)
    return _DIGIT_GAP.sub("", answer)


def _compare_plainly(answer: str, gold: str) -> bool | None:
    """Return whether two normalised answers are equal; None if a parser of mathematics must decide."""
    if not answer or not gold or max(len(answer), len(gold)) > MAX_ANSWER_LENGTH:
        return False
    if answer == gold:
        return True
    integers = [_INTEGER.fullmatch(text) for text in (answer, gold)]
    if integers[0] and integers[1]:
        (sign, digits), (gold_sign, gold_digits) = (
            (match[1] == "-", match[2].lstrip("0")) for match in integers if match
        )
        return digits == gold_digits and (sign == gold_sign or not digits)
    if "\\ldots" in answer + gold:  # a parser drops the ellipsis, and cannot know how a list goes on
        return answer.replace(" ", "") == gold.replace(" ", "")
    return None


class _MathWorker:
    """One running `math_worker.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -P: the worker's folder contains a math.py, which must not shadow the standard library's.
            [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            process_group=0,  # only the parent handles a Ctrl-C at the terminal
        )
        if self._reply_within(START_SECONDS) != "ready":
            self.close()
            raise MachineError(
                "the grading process did not start: math-verify cannot be imported",
                hint="pip install 'math-verify>=0.9'",
            )

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        """Return the worker's standard input and output."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        return self._process.stdin, self._process.stdout

    def _reply_within(self, seconds: float, line: str | None = None) -> object:
        """Write `line`, if any, and return the next reply; None if the worker dies or is killed after `seconds`."""
        requests, replies = self._pipes()
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            if line is not None:
                requests.write(line)
                requests.flush()
            reply = replies.readline()
        except OSError:  # nobody reads the pipe any more
            return None
        finally:
            timer.cancel()
            timer.join()  # a kill under way must not hit the next job
        return json.loads(reply) if reply.endswith("\n") else None

    def compare(self, answer: str, gold: str, seconds: float) -> bool | None:
        """Return whether the two are equal; None if the worker died or exceeded `seconds`."""
        job = json.dumps({"answer": answer, "gold": gold, "seconds": seconds})
        verdict = self._reply_within(seconds + KILL_GRACE, job + "\n")
        return verdict if isinstance(verdict, bool) else None

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        for pipe in self._pipes():
            try:
                pipe.close()
            except OSError:  # closing flushes bytes that a dead worker can no longer read
                continue
        self._process.wait()


class MathGrader:
    r"""Grades texts against reference answers; a context manager, because it can own a process.

    The process starts with the first answer that needs mathematics and ends with the context. Calls from several
    threads run one after another. No text makes the grader raise or hang.
    """

    def __init__(self, deadline: float = 5.0) -> None:
        """Set the deadline, in seconds, for each answer."""
        self.deadline = deadline
        self._worker: _MathWorker | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the grader; its process starts later."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker if one runs."""
        self.close()

    def close(self) -> None:
        """End the worker if one runs; the grader can be used again."""
        with self._lock:
            self._stop_worker()

    def grade(self, text: str, answer: object) -> bool | None:
        r"""Return whether the content of the last box of `text` equals `answer`.

        Args:
            text: what a model wrote.
            answer: the reference answer, as a text; it may itself be in a box.

        Returns:
            The verdict; None if the worker exceeded the deadline or died.

        Raises:
            TypeError: if the reference answer is not a text.
            MachineError: if math-verify cannot be imported.
        """
        if not isinstance(answer, str):
            raise TypeError(f"the reference answer must be a text, not {answer!r}")
        given = extract_boxed(text)
        if given is None:
            return False
        boxed = extract_boxed(answer)
        given, gold = _normalise(given), _normalise(answer if boxed is None else boxed)
        decided = _compare_plainly(given, gold)
        return self._ask_worker(given, gold) if decided is None else decided

    def _ask_worker(self, given: str, gold: str) -> bool | None:
        """Return the worker's verdict on two normalised answers; a worker without one is ended."""
        with self._lock:
            if self._worker is None:
                self._worker = _MathWorker()
            verdict = None
            try:
                verdict = self._worker.compare(given, gold, self.deadline)
            finally:  # also when interrupted: the next answer must not receive this reply
                if verdict is None:
                    self._stop_worker()
        return verdict

    def _stop_worker(self) -> None:
        """End the worker if one runs; the lock is held."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
