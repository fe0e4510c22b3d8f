"""An answer as `pipo chat` shows it while it is written: its thought apart from it, and kept drafts marked."""

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pipo_core.engine import Delta

REJECTED = "·"
_BETWEEN = "\n\n"


def shows_colours() -> bool:
    """Return whether standard output is a terminal that is to show colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Transcript:
    """Turns what steps wrote into the text to print. Thoughts are dim.

    With drafts, kept ones are green, and rejected ones a dot; without colours kept ones stand between ‹ and ›. A
    character that several tokens make together is shown with the last one of them.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase | None", *, colours: bool, drafts: bool = False, opened: bool = True
    ) -> None:
        """Begin an answer.

        Args:
            tokenizer: the checkpoint's, of which drafts are decoded one by one; None if none are marked.
            colours: whether colours may be used.
            drafts: whether drafts are marked.
            opened: whether the prompt has opened the thought; if not, an answer has one if it begins with its mark.
        """
        from pipo_core.chat import Detokenizer, ThoughtSplitter

        self._colours = colours
        self._text = Detokenizer(tokenizer) if drafts and tokenizer is not None else None
        self._splitter = ThoughtSplitter(opened=opened)
        self._thought, self._answers = "", False

    def add(self, delta: "Delta") -> str:
        """Return what a step adds."""
        if self._text is None:
            return self._shown(delta.text, kept=False)
        shown = ""
        for written in delta.tokens:
            if written.kind == "rejected":
                shown += typer.style(REJECTED, dim=True) if self._colours else REJECTED
            else:
                shown += self._shown(self._text.add(written.token_id), kept=written.kind == "kept")
        return shown

    def finish(self) -> str:
        """Return the rest of the answer; nothing follows it."""
        held = "" if self._text is None else self._text.finish()
        return self._shown(held, kept=False) + self._styled(self._splitter.end(), thought=True, kept=False)

    def _shown(self, text: str, *, kept: bool) -> str:
        thought, answer = self._splitter.feed(text)
        shown = self._styled(thought, thought=True, kept=kept)
        self._thought += thought
        if answer and not self._answers:
            self._answers = True
            shown += _BETWEEN[: max(0, len(_BETWEEN) - _trailing_line_breaks(self._thought))] if self._thought else ""
        return shown + self._styled(answer, thought=False, kept=kept)

    def _styled(self, text: str, *, thought: bool, kept: bool) -> str:
        if not text:
            return ""
        if not self._colours:
            return f"‹{text}›" if kept else text
        return typer.style(text, fg="green" if kept else None, dim=thought or None)


def _trailing_line_breaks(text: str) -> int:
    """Return how many line breaks end a text."""
    return len(text) - len(text.rstrip("\n"))
