"""A reduced vocabulary for drafts: the second projection uses some thousands of the LM head's rows instead of all.

The logits of the set are those of the full head; the others are left out before penalties, top-k and top-p. A token
outside the set cannot be drafted. The gate sees ``h_i`` and ``m_i`` but not the token, so it does not know that: where
such a token should follow, a wrong draft may be kept. So the set must hold nearly all tokens that are ever written
(docs/results/tiny.md shows what happens otherwise).
"""

from collections.abc import Iterable
from itertools import islice

import torch

from pipo_core.decode.backbone import project
from pipo_core.errors import UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class DraftVocab:
    """The ids that drafts come from, and a copy of the LM head's rows for them.

    Attributes:
        ids: ``[N]``, ascending, so that ties fall as they fall in the full vocabulary.
    """

    def __init__(
        self, model: Qwen3_5ForCausalPIPO, size: int, by_frequency: Iterable[int], ends: frozenset[int]
    ) -> None:
        """Take ``size`` ids: those that end a text, then the most frequent; fewer where fewer are given.

        Raises:
            UsageError: if not even the ends find room, or an id is not in the model's vocabulary.
        """
        if size < max(len(ends), 1):
            raise UsageError(f"a draft vocabulary of {size} has no room for the {len(ends)} ids that end a text")
        others = (token for token in by_frequency if token not in ends)
        chosen = sorted({*ends, *islice(others, size - len(ends))})
        if chosen and not 0 <= chosen[0] <= chosen[-1] < model.config.vocab_size:
            raise UsageError(f"the draft vocabulary has ids outside the model's {model.config.vocab_size}")
        self.ids = torch.tensor(chosen, dtype=torch.long, device=model.device)
        self._weight = model.lm_head.weight.detach()[self.ids]

    def logits(self, model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of `ids`, ``[B, N]``, of hidden states ``[B, H]``."""
        return project(model, hidden, self._weight)
