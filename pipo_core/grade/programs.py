"""Finds the program in a model's text, and compares what programs write with what they should."""

import json
import re
from decimal import Decimal, InvalidOperation

_FENCE = re.compile(r"[ \t]*(`{3,})[ \t]*([^`\n]*)")
_TAGS = {"", "py", "python", "python3"}
_SLACK, _MOST_TIMES = 1 << 16, 16
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"


def extract_program(text: str) -> str | None:
    """Return the last fenced block of `text` that is tagged as Python or not at all; None if there is none.

    Only what follows the last `</think>` counts. A last block that is not closed gives None: a text that was cut off
    there has not given its answer. A line ```` ```python ```` within a block begins another one, as models do that
    start again.
    """
    answer = text.rpartition(_THOUGHT_ENDS)[2]
    if answer.lstrip().startswith(_THOUGHT_BEGINS):
        return None
    found: str | None = None
    fence, indent, is_python = "", 0, False
    block: list[str] = []
    for line in answer.split("\n"):
        mark = _FENCE.fullmatch(line.rstrip())
        words = mark[2].split() if mark else []
        if mark and fence and not words and len(mark[1]) >= len(fence):
            if is_python:
                found = "\n".join(block)
            fence = ""
        elif mark and (words or not fence):
            fence, indent = mark[1], len(line) - len(line.lstrip())
            is_python, block = " ".join(words[:1]).lower() in _TAGS, []
            found = None if is_python else found
        elif fence:
            block.append(line[indent:] if not line[:indent].strip() else line)
    return found


def same_text(written: str, expected: str) -> bool:
    """Return whether a program's output is what was expected, by LiveCodeBench's rule.

    Blanks around the text and around each line do not count. Lines are equal as texts, or as lists of decimal numbers
    that are exactly equal: `1.50` is `1.5`, and `0.333` is not `1/3`.
    """
    written, expected = written.strip(), expected.strip()
    if written.count("\n") != expected.count("\n"):
        return False
    lines, wanted = written.split("\n"), expected.split("\n")
    return all(_same_line(line.strip(), other.strip()) for line, other in zip(lines, wanted, strict=True))


def _same_line(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    if _is_far_longer(line, wanted):
        return False
    try:
        # Signalling NaNs raise when they are compared.
        return [Decimal(word) for word in line.split()] == [Decimal(word) for word in wanted.split()]
    except InvalidOperation:
        return False


def _is_far_longer(written: str | bytes, expected: str) -> bool:
    """Return whether something is too long to be right, so that parsing it would only cost memory."""
    return len(written) > _SLACK + _MOST_TIMES * len(expected)


def same_value(written: bytes, expected: str) -> bool:
    """Return whether the JSON of a function's value equals the expected JSON, as Python compares: 1 is 1.0."""
    if _is_far_longer(written, expected):
        return False
    try:
        return bool(json.loads(written) == json.loads(expected))
    except (ValueError, RecursionError):
        return False
