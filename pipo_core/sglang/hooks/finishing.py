"""Hooks where the scheduler looks at what a step wrote."""

import math
from typing import Any

from pipo_core.sglang.asked import asked_of
from pipo_core.sglang.served import served
from pipo_core.sglang.text import cut_behind, text_of


def finish_by_tokens(original: Any, req: Any, new_accepted_len: int = 1) -> None:
    """Let SGLang look for ends among tokens: ids, strings and patterns across a pair, and odd budgets.

    Its check takes several new tokens a step, as speculative decoding writes them. If the answer ends with a slot's
    first token, the second one is dropped.
    """
    model = served()
    if model is None or req.finished():
        original(req, new_accepted_len)
        return
    known = getattr(req, "pipo_text", None)
    before = 0 if known is None else len(known.tokens)
    slots, text = req.output_ids, text_of(req, model.ids)
    req.output_ids = text.tokens
    try:
        original(req, len(text.tokens) - before if new_accepted_len else 0)
    finally:
        req.output_ids = slots
    if req.finished() and req.finished_len is not None:
        cut_behind(req, text, req.finished_len)
    elif not req.finished() and len(slots) >= (asked_of(req).max_slots or math.inf):
        from sglang.srt.managers.schedule_batch import FINISH_LENGTH

        req.finished_reason = FINISH_LENGTH(length=len(text.tokens))
        req.finished_len = len(slots)


def count_reasoning(original: Any, processor: Any, req: Any, next_token_id: int | list[int]) -> Any:
    """Count a thought's tokens, not its slots."""
    model = served()
    if model is not None:
        slots = next_token_id if isinstance(next_token_id, list) else [next_token_id]
        next_token_id = model.ids.unpack(slots).tolist()
    return original(processor, req, next_token_id)
