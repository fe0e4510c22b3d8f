r"""Grade mathematics: compare the last `\boxed{…}` of a text with a reference answer.

Equal strings and plain integers are decided here at once. Everything else goes to math-verify in a separate process
(`worker.py`, `math_worker.py`) with a deadline. If that process exceeds the deadline or dies, the answer is undecided.
"""

import re
from collections import deque

from pipo_core.errors import MachineError
from pipo_core.grade.thoughts import answer_behind_thought
from pipo_core.grade.worker import WorkerGrader

MAX_ANSWER_LENGTH = 2_000
"""Characters. A longer answer is wrong and is not parsed; reference answers of benchmarks are far shorter."""

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


class MathGrader(WorkerGrader):
    r"""Grades texts against reference answers; a context manager, because it can own a process.

    The process starts with the first answer that needs mathematics.
    """

    def __init__(self, deadline: float = 5.0, *, thoughts_count: bool = True) -> None:
        """Set how answers are graded.

        Args:
            deadline: seconds for each answer.
            thoughts_count: whether a box in a thought counts, as in the PIPO authors' script; else only the text behind
                the last `</think>` does, and a thought that was cut off has no answer.
        """
        failure = MachineError(
            "the grading process did not start: math-verify cannot be imported", hint="pip install 'math-verify>=0.9'"
        )
        super().__init__("math_worker.py", failure, deadline)
        self._thoughts_count = thoughts_count

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
        said = text if self._thoughts_count else answer_behind_thought(text)
        given = None if said is None else extract_boxed(said)
        if given is None:
            return False
        boxed = extract_boxed(answer)
        given, gold = _normalise(given), _normalise(answer if boxed is None else boxed)
        decided = _compare_plainly(given, gold)
        if decided is not None:
            return decided
        reply = self._ask_worker({"answer": given, "gold": gold})
        return reply if isinstance(reply, bool) else None
