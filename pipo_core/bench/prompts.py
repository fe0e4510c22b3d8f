"""Prompts of a given length."""

from itertools import chain, cycle, islice

from transformers import PreTrainedTokenizerBase

from pipo_core.data.problems import load_problems, user_message
from pipo_core.engine import request_seed

_PROBLEMS = 64
"""Problems whose text one prompt repeats."""


def make_prompt(tokenizer: PreTrainedTokenizerBase, length: int, seed: int, salt: str = "") -> tuple[int, ...]:
    """Return exactly `length` token ids: the text of the tiny problems of `seed`, repeated.

    With a salt, a number is in front that depends on it, so that prompts of different salts do not begin alike.
    """
    problems = load_problems("tiny", "heldout", _PROBLEMS, seed)
    text = "\n".join(user_message(problem) for problem in problems) + "\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    head: list[int] = tokenizer.encode(f"{request_seed(salt):019} ", add_special_tokens=False) if salt else []
    return tuple(islice(chain(head, cycle(ids)), length))
