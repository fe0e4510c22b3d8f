"""Prompts of a given length."""

from itertools import cycle, islice

from transformers import PreTrainedTokenizerBase

from pipo_core.data.problems import load_problems, user_message

PROMPT_PROBLEMS = 64


def make_prompt(tokenizer: PreTrainedTokenizerBase, length: int, seed: int) -> tuple[int, ...]:
    """Return exactly `length` token ids: the text of tiny problems drawn with `seed`, repeated."""
    problems = load_problems("tiny", "heldout", PROMPT_PROBLEMS, seed)
    text = "\n".join(user_message(problem) for problem in problems) + "\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tuple(islice(cycle(ids), length))
