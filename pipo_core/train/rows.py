"""The rows of a training's data file: read with their line numbers, and checked before anything starts.

Which forms a row may have is in `row_forms`.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipo_core.errors import MissingInputError
from pipo_core.files import parse_data
from pipo_core.messages import END_OF_THOUGHT, MESSAGE_KEYS, THOUGHT, THOUGHT_KEYS, has_answer, with_one_thought_key
from pipo_core.train.row_forms import RowFormError, form_of, messages_of

_ROLES = ("system", "user", "assistant", "tool")
_ROW_HINT = (
    'a row looks like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "<think>\\n…"}]}'
)
_KEY_HINTS = {
    "weight": 'for an answer that is not learned give "loss": false',
    "tools": "put the tools' descriptions into a system message",
    "tool_calls": "put the calls into the content, as the model is to write them",
}


class Row(NamedTuple):
    """A line of the data file.

    Attributes:
        line: its number, from 1.
        messages: the turns, as the chat layout takes them: role, content and, if given, reasoning_content.
        learned: the indices of the assistant's turns that are learned; each is an example with the turns before it.
    """

    line: int
    messages: list[dict[str, str]]
    learned: list[int]


def check_rows(file: Path, limit: int | None = None, *, answered: bool = True, unread: Collection[str] = ()) -> int:
    """Return how many examples the rows of a JSON-lines file make.

    Args:
        file: the data.
        limit: check at most this many rows.
        answered: whether answers are learned: a row makes an example for each of them. Otherwise every row is one
            question, up to its last user turn.
        unread: keys of rows and messages that may be there though nothing reads them.

    Raises:
        MissingInputError: for the first bad row, naming file and line, or if there are no rows.
    """
    count = 0
    for number, line in read_lines(file, limit):
        row = _parsed(file, number, line)
        problem, hint = _problem(row, answered=answered, unread=unread) or (None, None)
        if problem is not None:
            raise MissingInputError(f"{file}:{number}: {problem}", hint=hint)
        count += len(_learned(messages_of(row))) if answered else 1
    if not count:
        raise MissingInputError(f"{file}: no rows to train on", hint=_ROW_HINT)
    return count


def read_rows(file: Path, limit: int | None) -> Iterator[Row]:
    """Yield the rows of a file that `check_rows` has passed, at most ``limit``.

    Raises:
        MissingInputError: if the file cannot be read, or a line is not JSON.
    """
    for number, line in read_lines(file, limit):
        yield parse_row(file, number, line)


def parse_row(file: Path, number: int, line: bytes) -> Row:
    """Return the row of a line that `check_rows` has passed.

    Raises:
        MissingInputError: if the line is not JSON.
    """
    messages = messages_of(_parsed(file, number, line))
    kept = [
        {key: message[key] for key in ("role", "content", *THOUGHT_KEYS) if message.get(key)} for message in messages
    ]
    return Row(number, [with_one_thought_key({"content": "", **message}) for message in kept], _learned(messages))


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


def _parsed(file: Path, number: int, line: bytes) -> Any:
    try:
        return parse_data(line)
    except ValueError as error:
        raise MissingInputError(f"{file}:{number}: {error}", hint=_ROW_HINT) from error


def _learned(messages: list[Mapping[str, Any]]) -> list[int]:
    return [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("loss") is not False
    ]


def _problem(row: Any, *, answered: bool, unread: Collection[str]) -> tuple[str, str] | None:
    """Return what is wrong with a row and a hint, None if nothing is."""
    if not isinstance(row, dict):
        return 'not an object with a list under the key "messages"', _ROW_HINT
    form = form_of(row)
    if form is not None:
        stray = _stray_key(row, form.keys, unread)
        if stray is not None:
            return f"nothing reads the key {stray!r} of a row with {form.key}", _key_hint(stray)
        contrary = next((key for key in form.keys if key in unread and row.get(key) is not None), None)
        if contrary is not None:
            return (
                f"data.unread names {contrary!r}, which is read in a row with {form.key}",
                "take it out of data.unread",
            )
    try:
        messages = messages_of(row)
    except RowFormError as error:
        return str(error), _ROW_HINT
    for index, message in enumerate(messages):
        problem = _message_problem(index, message, messages[index - 1] if index else None, unread)
        if problem is not None:
            return problem
    if not any(message["role"] == "user" for message in messages):
        return "no user turn", _ROW_HINT
    return _answer_problem(messages) if answered else None


def _message_problem(
    index: int, message: Any, before: Mapping[str, Any] | None, unread: Collection[str]
) -> tuple[str, str] | None:
    """Return what is wrong with a message behind ``before``, and a hint."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in _ROLES:
        return f"message {index} has no role out of {', '.join(_ROLES)}", _ROW_HINT
    known = (*MESSAGE_KEYS, *THOUGHT_KEYS) if role == "assistant" else MESSAGE_KEYS
    stray = _stray_key(message, known, unread)
    if stray is not None:
        return f"nothing reads the key {stray!r} of message {index}, whose role is {role}", _key_hint(stray)
    thoughts = [key for key in THOUGHT_KEYS if message.get(key) not in (None, "")]
    if not isinstance(message.get("content"), str):
        return f"message {index} has no text under the key content", _ROW_HINT
    if any(not isinstance(message[key], str) for key in thoughts):
        return f"message {index}: {thoughts[0]} is not a text", _ROW_HINT
    inside = message["content"].lstrip().startswith(THOUGHT) or (
        role == "assistant" and END_OF_THOUGHT in message["content"]
    )
    if len(thoughts) + (inside and bool(thoughts)) > 1:
        return f"message {index} has two thoughts", f"keep one of: {', '.join(THOUGHT_KEYS)}, <think> in the content"
    if thoughts and END_OF_THOUGHT in message[thoughts[0]]:
        return f"message {index}: {thoughts[0]} holds {END_OF_THOUGHT}, which would end the thought there", _ROW_HINT
    loss = message.get("loss")
    if not (loss is None or isinstance(loss, bool)) or (loss and role != "assistant"):
        return f"message {index}: loss is true or false, and true for answers alone", _ROW_HINT
    if role == "system" and before is not None:
        return f"message {index} is a system turn, which may only be the first one", _ROW_HINT
    if role == "tool" and (before is None or before["role"] not in ("assistant", "tool")):
        return f"message {index} is a tool's, but no answer is before it", _ROW_HINT
    return None


def _answer_problem(messages: list[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return what is wrong with the answers that are learned, and a hint."""
    if messages[-1]["role"] != "assistant":
        return "the last turn is not the assistant's", _ROW_HINT
    learned = _learned(messages)
    if not learned:
        return "no answer is learned: every one has loss: false", _ROW_HINT
    first_user = next(index for index, message in enumerate(messages) if message["role"] == "user")
    for index in learned:
        if index < first_user:
            return (
                f"message {index} is an answer without a user turn before it",
                'begin with a user turn, or give it "loss": false',
            )
        if not has_answer(messages[index]):
            return f"message {index}: the answer is empty", _ROW_HINT
    return None


def _stray_key(found: Mapping[str, Any], known: Collection[str], unread: Collection[str]) -> str | None:
    """Return a key that nothing reads; null counts as absent."""
    return next((key for key, value in found.items() if value is not None and key not in (*known, *unread)), None)


def _key_hint(key: str) -> str:
    return f"{_KEY_HINTS.get(key, 'remove it')}, or name it in data.unread"
