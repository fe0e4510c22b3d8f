"""Splits a streamed answer at ``</think>`` into the thought and the text behind it."""

from pipo_core.messages import END_OF_THOUGHT, THOUGHT

_OPENING = f"{THOUGHT}\n"


class ThoughtSplitter:
    """Splits an answer into its thought and what follows; the answer's pieces are fed in order.

    The beginning of a possible ``</think>`` is held back, so the result does not depend on how the text was cut. Line
    breaks directly behind the mark belong to the layout and are in neither part.
    """

    def __init__(self, *, opened: bool = True) -> None:
        """Begin an answer.

        Args:
            opened: whether the prompt has opened the thought; if not, an answer has one if it begins with ``<think>``.
        """
        self._held = ""
        self._opened = opened
        self._thinking = True
        self._at_begin = True

    def feed(self, text: str) -> tuple[str, str]:
        """Return the texts that a piece adds to the thought and to the answer."""
        if not self._opened:
            text, self._held = self._held + text, ""
            if text != _OPENING and _OPENING.startswith(text):
                self._held = text
                return "", ""
            self._opened, self._thinking = True, text.startswith(THOUGHT)
            text = text.removeprefix(THOUGHT).removeprefix("\n") if self._thinking else text
        if not self._thinking:
            return "", self._say(text)
        thought, mark, answer = (self._held + text).partition(END_OF_THOUGHT)
        if mark:
            self._thinking, self._held = False, ""
            return thought, self._say(answer)
        sizes = range(len(END_OF_THOUGHT) - 1, 0, -1)
        keep = next((size for size in sizes if thought.endswith(END_OF_THOUGHT[:size])), 0)
        cut = len(thought) - keep
        self._held = thought[cut:]
        return thought[:cut], ""

    def end(self) -> str:
        """End the answer and return the held-back text: of a thought that has no end mark, or of an unopened one."""
        held, self._held = self._held, ""
        return held

    def _say(self, text: str) -> str:
        if self._at_begin:
            text = text.lstrip("\n")
            self._at_begin = not text
        return text
