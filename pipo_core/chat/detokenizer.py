"""From tokens to text while they arrive: a token's text is final as soon as no later token can change it.

A later token can change the text for two reasons: a character may be spread over several tokens, and a stop string may
have begun. Some tokenizers also write a token differently at the beginning of a text, so the newest tokens are decoded
together with some before them. Each token costs the decoding of at most `_WINDOW` tokens.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_CONTEXT = 8
"""Tokens that stay in the window when it is cut. A character has at most four bytes, hence at most four tokens."""
_WINDOW = 2 * _CONTEXT
_PARTIAL = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """The text of one answer while it grows, cut before its first stop string.

    Args:
        tokenizer: the model's.
        stop: strings that end the text; they are not part of it.
        behind: stop strings count only behind the first occurrence of this text, and behind the line breaks that
            follow it; empty if they count from the beginning.

    Attributes:
        stopped: whether a stop string was found; the text is then complete.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = (), behind: str = "") -> None:
        self.stopped = False
        self._backend = tokenizer.backend_tokenizer
        self._stop = tuple(stop)
        self._behind = behind  # empty as soon as it was passed
        self._line_breaks = bool(behind)  # whether line breaks that follow it are still to be passed
        self._tail = ""  # the newest text, in which it may have begun
        self._window: list[int] = []  # the newest tokens
        self._taken = 0  # characters of the window's text that have left it
        self._held = ""  # decoded text that may be the beginning of a stop string

    def add(self, token: int) -> str:
        """Add one token and return the text that has become final."""
        self._window.append(token)
        text = self._decode(self._window)
        final = len(text) - text.endswith(_PARTIAL)  # more bytes may come for the last character
        new = text[self._taken : final]
        self._taken = max(self._taken, final)
        if len(self._window) > _WINDOW:
            self._window = self._window[-_CONTEXT:]
            self._taken -= len(text) - len(self._decode(self._window))
        return self._release(new)

    def finish(self) -> str:
        """End the text and return the part that was held back."""
        free, rest = self._pass(self._decode(self._window)[self._taken :])
        rest = self._held + rest
        self._held, self._window, self._taken = "", [], 0
        place = self._find_stop(rest)
        return free + (rest if place is None else rest[:place])

    def _release(self, new: str) -> str:
        """Return the final part of the held text and `new`, and hold the rest."""
        if not self._stop:
            return new
        free, new = self._pass(new)
        text = self._held + new
        place = self._find_stop(text)
        if place is None:
            place = self._beginning(text)
        else:
            self.stopped = True
            self._window, self._taken = [], 0
        self._held = "" if self.stopped else text[place:]
        return free + text[:place]

    def _pass(self, new: str) -> tuple[str, str]:
        """Return the part of a new text in which stop strings do not count, and the part in which they do."""
        begin = 0
        if self._behind:
            seen = self._tail + new
            place = seen.find(self._behind)
            if place < 0:
                self._tail = seen[len(seen) - len(self._behind) + 1 :] if len(seen) >= len(self._behind) else seen
                return new, ""
            begin = place + len(self._behind) - len(self._tail)
            self._behind = self._tail = ""
        if self._line_breaks:
            rest = new[begin:].lstrip("\n")
            self._line_breaks = not rest
            begin = len(new) - len(rest)
        return new[:begin], new[begin:]

    def _find_stop(self, text: str) -> int | None:
        """Return the position of the first stop string, or None."""
        places = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        return min(places, default=None)

    def _beginning(self, text: str) -> int:
        """Return the first position at which a stop string may have begun; the length of `text` if there is none."""
        longest = max(len(stop) for stop in self._stop) - 1
        for place in range(max(len(text) - longest, 0), len(text)):
            tail = text[place:]
            if any(stop.startswith(tail) for stop in self._stop):
                return place
        return len(text)

    def _decode(self, ids: list[int]) -> str:
        # The backend's decoder does not clean up spaces; the clean-up would change text that was returned already.
        return str(self._backend.decode(ids, skip_special_tokens=True))
