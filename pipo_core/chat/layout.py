"""Chat layout: from messages to ids, the same for training, rollouts and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.chat.control_tokens import ControlTokens
from pipo_core.errors import UsageError
from pipo_core.messages import END_OF_THOUGHT, THOUGHT, split_thought
from pipo_core.text import one_line

_ANSWER = "pipo"
"""A text without control tokens, to find in what the chat template makes of it."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    r"""Return the ids of a conversation up to where the assistant's turn is written.

    The template's ``<think>\n``, which opens the thought, is part of the prompt. So is an empty thought, where the
    answer is to come without one.

    Args:
        tokenizer: the model's, with its chat template.
        messages: the turns, each with `role` and `content`.
        thinking: whether the answer begins with a thought; pair models are trained with thoughts.
        tools: what the assistant may call, in OpenAI's shape.

    Raises:
        UsageError: if the chat template fails on these messages.
    """
    controls = ControlTokens(tokenizer)
    return controls.encode(_prompt_text(tokenizer, controls, messages, thinking=thinking, tools=tools))


def takes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the chat template has a place for tools and for calls of them."""
    template = str(tokenizer.chat_template)
    return "tools" in template and "tool_calls" in template


def encode_answered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int]]:
    r"""Return the ids of the prompt that asks for a conversation's last turn, and those of that turn.

    The prompt is what `encode_prompt` makes of the turns before. So whatever the template does with them, such as
    leaving out earlier thoughts, training reads what decoding will read. The turn is what decoding is to write behind
    the prompt's ``<think>\n``: the thought, ``\n</think>\n\n``, the answer, and the token that ends a turn. An answer
    without a thought has an empty one; a thought without an end was cut off, and the end token follows it directly.

    Args:
        tokenizer: the model's, with its chat template.
        messages: the turns; the last one is the assistant's.

    Raises:
        UsageError: if the chat template fails on these messages.
    """
    controls = ControlTokens(tokenizer)
    prompt = _prompt_text(tokenizer, controls, messages[:-1], thinking=True)
    thought, answer = (part and _plain(controls, part) for part in split_thought(messages[-1]))
    if thought is None:
        text = answer if _opens_thought(prompt) else f"{THOUGHT}\n{answer}"
    elif _opens_thought(prompt):
        text = f"{thought}\n{END_OF_THOUGHT}\n\n{answer}"
    else:
        text = f"{THOUGHT}\n{thought}\n{END_OF_THOUGHT}\n\n{answer}" if thought else str(answer)
    end = turn_end(tokenizer)
    written = [*controls.encode(str(text)), int(tokenizer.eos_token_id) if end is None else end]
    return controls.encode(prompt), written


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token that the chat template writes behind an assistant's text; None if it writes none."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # noqa: BLE001 - a template is a program, and it may reject this chat
        return None
    behind = str(text).rpartition(_ANSWER)[2].lstrip()
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return next((number for number, token in added.items() if token.content and behind.startswith(token.content)), None)


def _prompt_text(
    tokenizer: PreTrainedTokenizerBase,
    controls: ControlTokens,
    messages: Sequence[Mapping[str, Any]],
    *,
    thinking: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    try:
        hidden = [controls.hide(message) for message in messages]
        # Without tools the argument is left out: a template may ask whether it is there.
        offered = {"tools": [controls.hide(tool) for tool in tools]} if tools else {}
        return str(
            tokenizer.apply_chat_template(
                hidden, add_generation_prompt=True, enable_thinking=thinking, tokenize=False, **offered
            )
        )
    except Exception as error:  # a template is a program and may raise anything; tools may be nested too deeply
        raise UsageError(f"the chat template does not take these messages: {one_line(error)}") from error


def _opens_thought(prompt: str) -> bool:
    return prompt.endswith(f"{THOUGHT}\n")


def _plain(controls: ControlTokens, text: str) -> str:
    return str(controls.hide({"content": text})["content"])
