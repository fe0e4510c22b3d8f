"""Helpers for messages: suggestions for misspelt words, and any text on one printable line."""

from collections.abc import Iterable
from difflib import get_close_matches

_HALF = 400
_MAX_LENGTH = 100
"""Longer words get no suggestion: they are not misspellings, and comparing them takes long."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most similar to `word`, or None if none is similar."""
    if len(word) > _MAX_LENGTH:
        return None
    lowered = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` with the most similar choice, or an empty text."""
    match = nearest(word, choices)
    return f" (did you mean {match!r}?)" if match else ""


def one_line(message: str | BaseException) -> str:
    """Return a message as one line of printable characters; the middle of a very long one is left out."""
    text = message if isinstance(message, str) else " ".join(str(message).split()) or type(message).__name__
    if len(text) > 2 * _HALF:
        text = f"{text[:_HALF]} … {text[-_HALF:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
