"""Prompts of a given length."""

from itertools import cycle, islice

from transformers import PreTrainedTokenizerBase

from pipo_core.data.problems import load_problems, user_message

_PROBLEMS = 64
"""Problems whose text one prompt repeats."""


def make_prompt(tokenizer: PreTrainedTokenizerBase, length: int, seed: int) -> tuple[int, ...]:
    """Return exactly `length` token ids: the text of the tiny problems of `seed`, repeated."""
    problems = load_problems("tiny", "heldout", _PROBLEMS, seed)
    text = "\n".join(user_message(problem) for problem in problems) + "\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tuple(islice(cycle(ids), length))
