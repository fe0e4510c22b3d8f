"""A reduced vocabulary for drafts: the second projection uses some thousands of the LM head's rows instead of all.

The logits of the set are those of the full head; the others are left out before penalties, top-k and top-p. A token
outside the set cannot be drafted. The gate sees ``h_i`` and ``m_i`` but not the token, so it must have learned which
tokens are in the set: a training with ``draft_vocab`` teaches it to reject the draft where another one is likely. A
gate that has not learned it keeps a wrong draft there, so its set must hold nearly all tokens that are ever written
(docs/results/tiny.md shows both).
"""

from collections.abc import Iterable

import torch

from pipo_core.decode.backbone import project
from pipo_core.model.frequent_tokens import draft_ids
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class DraftVocab:
    """The ids that drafts come from, and a copy of the LM head's rows for them.

    Attributes:
        ids: ``[N]``, ascending, so that ties fall as they fall in the full vocabulary.
    """

    def __init__(
        self, model: Qwen3_5ForCausalPIPO, size: int, by_frequency: Iterable[int], ends: frozenset[int]
    ) -> None:
        """Take the ids that `draft_ids` chooses.

        Raises:
            UsageError: if not even the ends find room, the model has fewer ids, or an id is not one of the model's.
        """
        chosen = draft_ids(size, by_frequency, ends, model.config.vocab_size)
        self.ids = torch.tensor(chosen, dtype=torch.long, device=model.device)
        self._weight = model.lm_head.weight.detach()[self.ids]

    def logits(self, model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of `ids`, ``[B, N]``, of hidden states ``[B, H]``."""
        return project(model, hidden, self._weight)
