"""Did you mean …?"""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like `word`, or None if none does."""
    lowered = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest choice, or an empty text."""
    match = nearest(word, choices)
    return f" (did you mean {match!r}?)" if match else ""
