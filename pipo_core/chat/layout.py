"""Chat layout: from messages to ids, the same for training, rollouts and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.chat.control_tokens import ControlTokens
from pipo_core.errors import UsageError
from pipo_core.text import one_line


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, thinking: bool = True
) -> list[int]:
    r"""Return the ids of a conversation up to where the assistant's turn is written.

    The template's ``<think>\n``, which opens the thought, is part of the prompt. So is an empty thought, where the
    answer is to come without one.

    Args:
        tokenizer: the model's, with its chat template.
        messages: the turns, each with `role` and `content`.
        thinking: whether the answer begins with a thought; pair models are trained with thoughts.

    Raises:
        UsageError: if the chat template fails on these messages.
    """
    controls = ControlTokens(tokenizer)
    hidden = [controls.hide(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            hidden, add_generation_prompt=True, enable_thinking=thinking, tokenize=False
        )
    except Exception as error:  # a template is a program and may raise anything
        raise UsageError(f"the chat template does not take these messages: {one_line(error)}") from error
    return controls.encode(text)
