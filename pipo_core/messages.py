"""Chat messages: where an assistant's thought is, before ``</think>`` in its content or under a key of its own."""

from collections.abc import Mapping
from typing import Any

THOUGHT = "<think>"
END_OF_THOUGHT = "</think>"
MESSAGE_KEYS = ("role", "content", "loss")
"""Keys of a message in a training's data; an assistant's message has `THOUGHT_KEYS`, too."""

THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message under which clients and data sets put its thought; chat templates read the first one."""


def split_thought(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the thought and the answer of an assistant's message.

    Returns:
        The thought, None if it has no end: then all of the text is a thought that was cut off. It is empty if the
        message has none. White space around both belongs to the layout and is left out.
    """
    content = str(message["content"])
    for key in THOUGHT_KEYS:
        if message.get(key):
            return str(message[key]).strip(), content.strip()
    opened = content.lstrip().startswith(THOUGHT)
    inside = content.lstrip().removeprefix(THOUGHT) if opened else content
    thought, end, answer = inside.partition(END_OF_THOUGHT)
    if end:
        return thought.strip(), answer.strip()
    return (None, inside.removeprefix("\n")) if opened else ("", content.strip())


def has_answer(message: Mapping[str, Any]) -> bool:
    """Return whether an assistant's message has any text, thought or answer."""
    thought, answer = split_thought(message)
    return bool((thought or "").strip() or answer.strip())


def with_one_thought_key(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message with its thought, if it is under a key of its own, under the one that templates read."""
    thought = next((message[key] for key in THOUGHT_KEYS if message.get(key)), None)
    rest = {key: value for key, value in message.items() if key not in THOUGHT_KEYS}
    return rest if thought is None else {**rest, THOUGHT_KEYS[0]: thought}
