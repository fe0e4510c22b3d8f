"""The rows of a training's data file: read with their line numbers, and checked before anything starts."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipo_core.errors import MissingInputError

THINK = "<think>\n"
"""How an answer begins. The generation prompt ends with it, so it has no loss (docs/algorithm.md, chat format)."""

_ROLES = ("system", "user", "assistant", "tool")
_ROW_HINT = (
    'a row looks like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "<think>\\n…"}]}'
)


def check_rows(file: Path, limit: int | None = None, *, answered: bool = True) -> int:
    """Return how many rows of ``{"messages": [...]}`` a JSON-lines file holds, at most ``limit``.

    Args:
        file: the data.
        limit: check at most this many rows.
        answered: whether each row must end with an answer; otherwise a user turn is enough.

    Raises:
        MissingInputError: for the first bad row, naming file and line, or if there are no rows.
    """
    count = 0
    for number, line in read_lines(file, limit):
        problem = _problem(line, answered=answered)
        if problem is not None:
            raise MissingInputError(f"{file}:{number}: {problem}", hint=_ROW_HINT)
        count += 1
    if not count:
        raise MissingInputError(f"{file}: no rows to train on", hint=_ROW_HINT)
    return count


def read_lines(file: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and content of each line that is not blank, at most ``limit`` of them.

    Raises:
        MissingInputError: if the file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            filled = ((number, line) for number, line in enumerate(opened, start=1) if line.strip())
            yield from islice(filled, limit)
    except OSError as error:
        raise MissingInputError(f"{file}: cannot be read: {error.strerror}") from error


def _problem(line: bytes, *, answered: bool) -> str | None:
    """Return what is wrong with a row, None if nothing is."""
    try:
        row = json.loads(line)
    except ValueError:
        return "not JSON"
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list):
        return 'no list under the key "messages"'
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"message {index} has no role out of {', '.join(_ROLES)}"
        if not isinstance(message.get("content"), str):
            return f"message {index} has no text under the key content"
    if not any(message["role"] == "user" for message in messages):
        return "no user turn"
    if not answered:
        return None
    if messages[-1]["role"] != "assistant":
        return "the last turn is not the assistant's"
    if not messages[-1]["content"].removeprefix(THINK).strip():
        return "the answer is empty"
    return None
