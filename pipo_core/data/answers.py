"""The index of a rollouts file: of each answer what decides its fate, without its text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipo_core.errors import MissingInputError


@dataclass(frozen=True)
class Answer:
    """One rollout: what decides whether it is kept, and where in the file it stands (`offset`, bytes)."""

    problem: str
    sample: int
    correct: bool
    finished: bool
    tokens: int
    offset: int

    @property
    def solved(self) -> bool:
        """Whether the answer is right and was not cut off."""
        return self.correct and self.finished


def read_index(path: Path) -> Iterator[Answer]:
    """Yield every rollout of the file once, sorted out by (question, sample); a repeated one counts once.

    A truncated last line is left out. Raises MissingInputError for any other line that is not a rollout.
    """
    seen: set[tuple[str, int]] = set()
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
                row = json.loads(line)
                answer = Answer(
                    problem=str(row["problem"]),
                    sample=int(row["sample"]),
                    correct=bool(row["correct"]),
                    finished=row["finish_reason"] == "stop",
                    tokens=int(row["tokens"]),
                    offset=start,
                )
            except (ValueError, KeyError, TypeError) as error:
                if not line.endswith(b"\n"):
                    return
                raise MissingInputError(f"{path}:{number}: not a rollout ({error!r})") from error
            if (answer.problem, answer.sample) not in seen:
                seen.add((answer.problem, answer.sample))
                yield answer
