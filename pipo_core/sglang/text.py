"""The tokens of a running request, kept beside the slots that SGLang sees."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipo_core.sglang.pair_ids import PairIds

_LOGPROBS = (
    "output_token_logprobs_val",
    "output_token_logprobs_idx",
    "output_top_logprobs_val",
    "output_top_logprobs_idx",
)
"""SGLang's lists of log-probabilities, an entry a step: of a token, and of the likeliest ones in its place."""


@dataclass
class PairText:
    """One request's tokens.

    Attributes:
        prompt: of its prompt.
        tokens: written so far, in the slots that have been read.
        read: how many of the request's output slots have been read.
        logprobs: SGLang's lists, an entry a token, of the slots in ``logged``.
        logged: how many slots they cover.
        drafts: token and confidence of each slot's draft, kept or not, if the request records them.
    """

    prompt: "array[int]"
    tokens: "array[int]" = field(default_factory=lambda: array("q"))
    read: int = 0
    logprobs: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _LOGPROBS})
    logged: int = 0
    drafts: list[tuple[int, float]] = field(default_factory=list)


def text_of(req: Any, ids: PairIds) -> PairText:
    """Return the tokens of a request, with all of its slots read."""
    text: PairText | None = getattr(req, "pipo_text", None)
    if text is None:
        text = req.pipo_text = PairText(ids.unpack(req.origin_input_ids))
    slots = req.output_ids
    if text.read > len(slots):
        text.tokens, text.read = array("q"), 0
    if text.read < len(slots):
        text.tokens.extend(ids.unpack(slots[text.read :]))
        text.read = len(slots)
    return text


def cut_behind(req: Any, text: PairText, count: int) -> None:
    """End a request behind its ``count``-th token; the slot that holds it loses what follows."""
    if count < len(text.tokens):
        req.output_ids[-1] = text.tokens[count - 1]
        del text.tokens[count:]
    req.finished_len = len(req.output_ids)


@contextmanager
def as_tokens(req: Any, ids: PairIds) -> Iterator[None]:
    """Show a request's prompt, output and log-probabilities as tokens while it is counted and sent."""
    text = text_of(req, ids)
    shown: dict[str, Any] = {
        "output_ids": text.tokens,
        "origin_input_ids": text.prompt,
        "origin_input_ids_unpadded": text.prompt,
    }
    if req.finished_len is not None:
        shown["finished_len"] = len(text.tokens)
    slots = {name: getattr(req, name) for name in shown}
    lists: dict[str, Any] = {}
    if req.return_logprob and req.logprob.output_token_logprobs_val:
        _read_logprobs(req.logprob, req.output_ids, text, ids)
        lists = {name: getattr(req.logprob, name) for name in _LOGPROBS}
    had_end = req.finished_len is not None
    try:
        for name, value in shown.items():
            setattr(req, name, value)
        for name in lists:
            setattr(req.logprob, name, text.logprobs[name])
        yield
    finally:
        for name, value in slots.items():
            setattr(req, name, value)
        if not had_end and req.finished_len is not None:  # SGLang has set it to the number of tokens
            req.finished_len = len(req.output_ids)
        for name, value in lists.items():
            setattr(req.logprob, name, value)


def _read_logprobs(lists: Any, slots: "array[int]", text: PairText, ids: PairIds) -> None:
    """Read the pairs of log-probabilities that the hooked sampling left, an entry a slot."""
    with_top = bool(lists.top_logprobs_num)
    for index in range(text.logged, len(lists.output_token_logprobs_val)):
        count = ids.count(slots[index])
        flat = text.logprobs
        flat["output_token_logprobs_val"] += lists.output_token_logprobs_val[index][:count]
        flat["output_token_logprobs_idx"] += ids.unpack([slots[index]])
        if with_top:
            flat["output_top_logprobs_val"] += lists.output_top_logprobs_val[index][:count]
            flat["output_top_logprobs_idx"] += lists.output_top_logprobs_idx[index][:count]
    text.logged = len(lists.output_token_logprobs_val)
