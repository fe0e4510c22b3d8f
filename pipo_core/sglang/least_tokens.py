"""``min_new_tokens``, counted on the device in tokens.

SGLang's own counts slots, a step late under overlap scheduling, and knows the tokenizer's end only. So the setting
travels in ``custom_params`` (`hooks.prompts`), where SGLang does not look, and is kept to here.
"""

from collections.abc import Sequence
from typing import Any

import torch

from pipo_core.sglang.asked import asked_of
from pipo_core.sglang.pair_ids import PairIds
from pipo_core.sglang.rows import Rows
from pipo_core.sglang.text import text_of

_LEAST_ROWS = 16


class LeastTokens:
    """How many tokens each request has written, by its place in the pool, and the ends that wait for more."""

    def __init__(self, device: Any) -> None:
        self._written = torch.zeros(_LEAST_ROWS, dtype=torch.int32, device=device)

    def start(self, requests: Sequence[Any], ids: PairIds) -> None:
        """Count what requests have written so far, before they are read or read again."""
        for req in requests:
            if asked_of(req).min_tokens:
                text = text_of(req, ids)
                place = int(req.kv.req_pool_idx)
                if place >= len(self._written):
                    more = max(len(self._written), place + 1 - len(self._written))
                    self._written = torch.cat([self._written, self._written.new_zeros(more)])
                self._written[place] = len(text.tokens)

    def hold_back(self, logits: torch.Tensor, rows: Rows, places: torch.Tensor) -> None:
        """Set the scores of ends to −∞ in place, in logits ``[B, V]``, where they come too early."""
        if rows.least is None or rows.ends is None:
            return
        early = self._written[places.long().clamp(max=len(self._written) - 1)] < rows.least
        held = early[:, None] & (rows.ends >= 0)
        ends = rows.ends.clamp(min=0)
        logits.scatter_(1, ends, logits.gather(1, ends).masked_fill(held, -torch.inf))

    def count(self, rows: Rows, places: torch.Tensor, wrote: torch.Tensor | None = None) -> None:
        """Count a token of the rows that wrote one, ``[B]``; None: of all."""
        if rows.least is None:
            return
        once = torch.ones_like(places, dtype=torch.int32) if wrote is None else wrote.int()
        known = places.long() < len(self._written)
        places = places.long().clamp(max=len(self._written) - 1)
        self._written.index_put_((places,), once * known, accumulate=True)
