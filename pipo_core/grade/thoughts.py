"""Leaves thoughts out of what is graded."""

from pipo_core.messages import END_OF_THOUGHT, THOUGHT


def answer_behind_thought(text: str, *, opened: bool = False) -> str | None:
    """Return the part of `text` that answers: what stands behind the last `</think>`, or all of a text without thought.

    Args:
        text: what a model wrote.
        opened: whether the prompt has opened the thought, so that a text without `</think>` is a cut-off thought.

    Returns:
        The answer, without the line breaks directly behind `</think>`, which belong to the layout; None if the text
        ends within a thought.
    """
    _, closed, rest = text.rpartition(END_OF_THOUGHT)
    if rest.lstrip().startswith(THOUGHT) or (opened and not closed):
        return None
    return rest.lstrip("\n") if closed else rest
