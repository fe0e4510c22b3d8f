r"""Chat layout: from messages to ids, the same for training, rollouts and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.chat.control_tokens import ControlTokens
from pipo_core.errors import UsageError
from pipo_core.text import one_line


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    r"""Return the ids of a conversation up to where the assistant writes, the template's ``<think>\n`` included.

    Raises:
        UsageError: if the chat template does not take these messages.
    """
    controls = ControlTokens(tokenizer)
    hidden = [controls.hide(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(hidden, add_generation_prompt=True, enable_thinking=True, tokenize=False)
    except Exception as error:  # a template is a program, and may fail in any way
        raise UsageError(f"the chat template does not take these messages: {one_line(error)}") from error
    return controls.encode(text)
