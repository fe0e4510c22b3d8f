"""Hook where a request enters the server."""

from collections.abc import Iterator
from typing import Any

from pipo_core.sglang.asked import asked_by
from pipo_core.sglang.hooks.loading import is_pair_config
from pipo_core.sglang.served import Served, serve_pairs, served

_MOST_TOKENS = 1_000_000_000
_GRAMMARS = ("json_schema", "regex", "ebnf", "structural_tag")
_LEAST_PENALTY = 0.01
"""Scores are divided by a penalty; by one near 0 they leave the range of numbers."""


def pack_prompt(
    original: Any,
    manager: Any,
    obj: Any,
    input_text: str,
    input_ids: list[int] | None,
    input_embeds: Any = None,
    mm_inputs: Any = None,
    *rest: Any,
    **named: Any,
) -> Any:
    """Make a request of slots from one of tokens.

    Raises:
        ValueError: which SGLang answers with status 400, for what a pair model cannot do, and for ids outside the
            vocabulary.
    """
    config = manager.model_config.hf_config
    if not is_pair_config(config):
        return original(manager, obj, input_text, input_ids, input_embeds, mm_inputs, *rest, **named)
    model = served() or _start(config)
    asked_by(obj.sampling_params.get("custom_params"))
    _move_least(obj.sampling_params)
    _check_ids(obj.sampling_params.get("stop_token_ids"), model.ids.vocabulary)
    unsupported = next(_unsupported(obj, input_embeds, mm_inputs), None)
    if unsupported is not None:
        raise ValueError(f"a PIPO model does not serve {unsupported}")
    tokens = input_ids or []
    if any(not 0 <= token < model.ids.vocabulary for token in tokens):
        raise ValueError(f"a token id is outside the vocabulary of {model.ids.vocabulary}")
    return original(manager, obj, input_text, model.ids.pack(tokens), input_embeds, mm_inputs, *rest, **named)


def _move_least(sampling: dict[str, Any]) -> None:
    """Put ``min_new_tokens`` where `pipo_core.sglang.least_tokens` looks for it, and SGLang does not.

    Raises:
        ValueError: if it is no number of tokens, more than ``max_new_tokens``, or stands beside a grammar.
    """
    least, most = sampling.pop("min_new_tokens", None), sampling.get("max_new_tokens")
    if not least:
        return
    if isinstance(least, bool) or not isinstance(least, int) or not 0 < least <= _MOST_TOKENS:
        raise ValueError(f"min_new_tokens is a whole number from 0 to {_MOST_TOKENS}, not {str(least)[:40]!r}")
    if isinstance(most, int) and least > most:
        raise ValueError(f"min_new_tokens is {least}, and max_new_tokens only {most}")
    if any(sampling.get(name) for name in _GRAMMARS):
        raise ValueError("min_new_tokens and a grammar cannot both decide when an answer ends")
    sampling["custom_params"] = {**(sampling.get("custom_params") or {}), "min_tokens": least}


def _check_ids(ids: Any, vocabulary: int) -> None:
    """Raise for ids that no token has.

    Raises:
        ValueError: naming one of them.
    """
    for token in ids if isinstance(ids, list | tuple | set) else ():
        if not isinstance(token, int) or not 0 <= token < vocabulary:
            raise ValueError(f"stop_token_ids has {str(token)[:40]}, which is outside the vocabulary of {vocabulary}")


def _start(config: Any) -> Served:
    from pipo_core.sglang.selfcheck import require_support

    require_support()
    return serve_pairs(config)


def _unsupported(obj: Any, input_embeds: Any, mm_inputs: Any) -> Iterator[str]:
    """Yield what a request asks for and a pair model cannot do."""
    sampling = obj.sampling_params
    first_logprob = getattr(obj, "logprob_start_len", None)
    asked = {
        "embeddings as input (input_embeds)": input_embeds is not None,
        "images, audio or video": mm_inputs is not None,
        "sessions": getattr(obj, "session_params", None) or getattr(obj, "session_id", None),
        "log-probabilities of the prompt (logprob_start_len, echo with logprobs)": (
            getattr(obj, "return_logprob", False) and first_logprob is not None and first_logprob >= 0
        ),
        "token_ids_logprob": getattr(obj, "token_ids_logprob", None),
        "return_sampling_mask": getattr(obj, "return_sampling_mask", None),
        "return_prompt_token_ids": getattr(obj, "return_prompt_token_ids", None),
        "return_hidden_states": getattr(obj, "return_hidden_states", None),
        "thinking budgets": (
            getattr(obj, "max_thinking_tokens", None)
            or (sampling.get("custom_params") or {}).get("thinking_budget") is not None
        ),
        "beam search": sampling.get("beam_width") or sampling.get("use_beam_search"),
        "watermarks": getattr(obj, "watermark", None) or sampling.get("watermark"),
        "custom logit processors": getattr(obj, "custom_logit_processor", None),
        "LoRA adapters": getattr(obj, "lora_path", None),
        "repetition_penalty below 0.01": 0 < (sampling.get("repetition_penalty") or 1) < _LEAST_PENALTY,
        "max_new_tokens = 0": sampling.get("max_new_tokens") == 0,
    }
    yield from (name for name, value in asked.items() if value)
