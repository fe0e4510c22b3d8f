"""Answers on disk: an append-only JSONL file that two steps write.

Asking appends one line per answer, as soon as the answer is complete. Grading appends one line per verdict. A killed
process loses nothing that was appended; when a step runs again, it does what is missing::

    {"problem": …, "sample": …, "text": …, "finish_reason": …, "tokens": …, …}     asking
    {"problem": …, "sample": …, "correct": …, "undecided": …, "judged": …}         grading
    {"problem": …, "sample": …, "correct": null}                                   to be graded anew

Lines of older versions hold answer and verdict together. Files can be larger than memory, so only an index is held. A
damaged line costs what it held and no more: it is left out when the log is opened, and asked or graded again.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from pipo_core.errors import MissingInputError
from pipo_core.files import DAMAGED, append_jsonl, decode_row, encode_row, new_file, writing


class Key(NamedTuple):
    """Names one answer: the problem's id and the number of the sample."""

    problem: str
    sample: int

    def __str__(self) -> str:
        return f"{self.problem}#{self.sample}"


@dataclass(frozen=True)
class Answer:
    """The index entry of one answer: what later steps need of it, without its text.

    Attributes:
        key: which answer it is.
        finished: whether the text ended with an end token or a stop string, not at a limit.
        tokens: real tokens of the text, the end token not counted.
        offset: byte position at which its line begins in the file.
        asked: fingerprint of what was asked; None in files of older versions.
        correct: the verdict; None before grading.
        undecided: whether grading broke off; the answer then counts as wrong.
        judged: fingerprint of the reference that the verdict was made by; None in files of older versions.
    """

    key: Key
    finished: bool
    tokens: int
    offset: int
    asked: str | None = None
    correct: bool | None = None
    undecided: bool = False
    judged: str | None = None

    @property
    def problem(self) -> str:
        """The problem's id."""
        return self.key.problem

    @property
    def sample(self) -> int:
        """The number of the sample."""
        return self.key.sample

    @property
    def solved(self) -> bool:
        """Whether the answer is correct and was not cut off."""
        return bool(self.correct) and self.finished


class AnswerLog:
    """Appends answers and verdicts, and indexes the answers of its file; a context manager.

    Attributes:
        path: the file.
        answers: the index, in the order in which the answers were completed.
        damaged: numbers (from 1) of the lines that were left out on opening; the file as it was is kept beside this
            one, with the suffix ``.damaged``.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it is first opened on entering the context."""
        self.path = path
        self.answers: dict[Key, Answer] = {}
        self.damaged: list[int] = []

    def __enter__(self) -> Self:
        """Index what the file holds, without its damaged lines, and open it for appending.

        Raises:
            MissingInputError: if the file cannot be read.
            MachineError: if the disk is full.
        """
        append_jsonl(self.path, [])  # removes the incomplete last line that a killed writer can leave
        found = _scan(self.path)
        self.damaged = list(found.damaged)
        if found.damaged:
            _leave_out(self.path, {*found.damaged, *found.without_answer})
            found = _scan(self.path)
        self.answers = found.answers
        self._file = self.path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError):  # a full disk, which was reported when the line was written
            self._file.close()

    def add_answer(self, row: Mapping[str, Any]) -> None:
        """Append an answer; it replaces an earlier answer of the same key."""
        offset = self._append(row)
        answer = _parse_answer(row, offset)
        self.answers[answer.key] = answer

    def add_verdict(self, key: Key, *, correct: bool, undecided: bool = False, judged: str | None = None) -> None:
        """Append the verdict on an answer; ``judged`` is the fingerprint of the reference that it was made by."""
        row = {**key._asdict(), "correct": correct, "undecided": undecided}
        self._append(row if judged is None else {**row, "judged": judged})
        self.answers[key] = replace(self.answers[key], correct=correct, undecided=undecided, judged=judged)

    def forget_verdicts(self) -> None:
        """Append, for each answer with a verdict, that it has none any more."""
        for key, answer in self.answers.items():
            if answer.correct is not None:
                self._append({**key._asdict(), "correct": None})
                self.answers[key] = replace(answer, correct=None, undecided=False, judged=None)

    def row(self, key: Key) -> dict[str, Any]:
        """Return an answer's line together with its verdict."""
        return read_row(self.path, self.answers[key])

    def _append(self, row: Mapping[str, Any]) -> int:
        """Append a line and return the byte position at which it begins."""
        offset = self._file.tell()
        line = encode_row(row)
        with writing(self.path):
            self._file.write(line)
            self._file.flush()
        return offset


def read_index(path: Path) -> dict[Key, Answer]:
    """Return the answers of a file by key.

    A later answer of the same key replaces the earlier one. Verdicts without an answer are ignored, and so is an
    incomplete last line.

    Raises:
        MissingInputError: if the file cannot be read, or another line is damaged, or neither an answer nor a verdict.
    """
    found = _scan(path)
    for number, problem in found.damaged.items():
        raise MissingInputError(
            f"{path}:{number}: {problem}",
            hint="give the command that made this file again: what the line held is asked or graded again",
        )
    return found.answers


class _Scan(NamedTuple):
    """What is in a file.

    Attributes:
        answers: by key.
        damaged: what is wrong with each damaged line, by its number from 1.
        without_answer: numbers of the lines with verdicts on answers that are not there.
    """

    answers: dict[Key, Answer]
    damaged: dict[int, str]
    without_answer: list[int]


def _scan(path: Path) -> _Scan:
    damaged: dict[int, str] = {}
    without_answer: list[int] = []
    found: dict[Key, Answer] = {}
    try:
        lines = path.open("rb")
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    offset = 0
    with lines:
        for number, line in enumerate(lines, start=1):
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                row = decode_row(line)
                if "text" in row:
                    answer = _parse_answer(row, start)
                    found[answer.key] = answer
                    continue
                key, verdict = _parse_key(row), None if row["correct"] is None else _truth(row["correct"])
                undecided = _truth(row.get("undecided", False))
            except (ValueError, KeyError, TypeError) as error:
                if line.endswith(b"\n"):  # otherwise a killed writer left it incomplete
                    damaged[number] = f"neither an answer nor a verdict ({error!r})"
                continue
            if key in found:
                judged = row.get("judged")
                found[key] = replace(found[key], correct=verdict, undecided=undecided, judged=judged)
            else:
                without_answer.append(number)
    return _Scan(found, damaged, without_answer)


def _leave_out(path: Path, numbers: Collection[int]) -> None:
    """Rewrite a file without some of its lines; the file as it was stays beside it.

    Raises:
        MachineError: if the disk is full.
    """
    kept = path.with_name(f"{path.name}{DAMAGED}")
    with path.open("rb") as lines, new_file(kept) as copy:
        shutil.copyfileobj(lines, copy)
    with path.open("rb") as lines, new_file(path) as file:
        file.writelines(line for number, line in enumerate(lines, start=1) if number not in numbers)


def read_row(path: Path, answer: Answer) -> dict[str, Any]:
    """Return an answer's line together with its verdict."""
    with path.open("rb") as file:
        file.seek(answer.offset)
        row = decode_row(file.readline())
    return {**row, "correct": answer.correct, "undecided": answer.undecided}


def read_rows(path: Path, answers: Iterator[Answer]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the given answers, in the given order, without verdicts."""
    with path.open("rb") as file:
        for answer in answers:
            file.seek(answer.offset)
            yield decode_row(file.readline())


def _parse_key(row: Mapping[str, Any]) -> Key:
    return Key(str(row["problem"]), int(row["sample"]))


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _parse_answer(row: Mapping[str, Any], offset: int) -> Answer:
    """Return the index entry of a line, whose further fields are checked here, as they are read later."""
    for name in ("slots", "drafts", "kept", "prompt_tokens"):
        if row.get(name) is not None:
            _count(row[name])
    if row.get("slot_token_counts") is not None:
        for count in row["slot_token_counts"]:
            _count(count)
    if not isinstance(row["text"], str):
        raise TypeError("the text is not a text")
    _count(row.get("written", row["tokens"]))
    return Answer(
        key=_parse_key(row),
        finished=row["finish_reason"] == "stop",
        tokens=_count(row["tokens"]),
        offset=offset,
        asked=row.get("asked"),
        correct=_truth(row["correct"]) if row.get("correct") is not None else None,
        undecided=_truth(row.get("undecided", False)),
    )
