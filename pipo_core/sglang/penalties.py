"""Penalties on repeated tokens, counted on the device.

SGLang's own count a step late under overlap scheduling, know nothing of a slot's second token, and leave the prompt out
of the repetition penalty. The counts here are those of `pipo_core.decode.sampling`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipo_core.sglang.pair_ids import PairIds
from pipo_core.sglang.rows import Rows, has_penalty
from pipo_core.sglang.text import text_of

_IN_PROMPT = 1 << 30
"""Flag of tokens that are in the prompt, beside the number of times that they are in the output."""
_LEAST_ROWS = 16


class PenaltyCounts:
    """How often each token is in a request's output, and whether it is in its prompt: a row a place in the pool."""

    def __init__(self, vocabulary: int, device: Any) -> None:
        self._counts = torch.zeros(_LEAST_ROWS, vocabulary, dtype=torch.int32, device=device)

    def start(self, requests: Sequence[Any], ids: PairIds) -> None:
        """Count what requests have read and written so far, before they are read or read again."""
        for req in filter(has_penalty, requests):
            text = text_of(req, ids)
            counts = np.bincount(np.asarray(text.tokens, dtype=np.int64), minlength=ids.vocabulary).astype(np.int32)
            counts[np.asarray(text.prompt)] |= _IN_PROMPT
            self._row(int(req.kv.req_pool_idx)).copy_(torch.from_numpy(counts))

    def _row(self, place: int) -> torch.Tensor:
        """Return a row, after making room for it: pools have many places, of which the first ones are used."""
        rows = len(self._counts)
        if place >= rows:
            more = max(2 * rows, place + 1) - rows
            self._counts = torch.cat([self._counts, self._counts.new_zeros(more, self._counts.shape[1])])
        return self._counts[place]

    def penalise(self, logits: torch.Tensor, rows: Rows, places: torch.Tensor) -> None:
        """Apply the penalties of `rows` to logits ``[B, V]`` in place; the requests' places are ``[B]``."""
        if rows.penalties is None:
            return
        # A request without penalties may have no row; whatever it takes, its penalties change nothing.
        counts = self._counts[places.long().clamp(max=len(self._counts) - 1)]
        output = (counts & (_IN_PROMPT - 1)).float()
        presence, frequency, repetition = rows.penalties.T[:, :, None]
        repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
        penalised = torch.where(counts > 0, repeated, logits) - presence * (output > 0) - frequency * output
        logits.copy_(penalised)

    def count(self, tokens: torch.Tensor, rows: Rows, places: torch.Tensor, wrote: torch.Tensor | None = None) -> None:
        """Count output tokens ``[B]``, of the rows that wrote one, ``[B]``; None: of all."""
        if rows.penalties is None:
            return
        once = torch.ones_like(tokens, dtype=torch.int32) if wrote is None else wrote.int()
        known = places.long() < len(self._counts)
        places = places.long().clamp(max=len(self._counts) - 1)
        self._counts.index_put_((places, tokens), once * known, accumulate=True)
