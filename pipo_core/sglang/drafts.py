"""Records of drafts, kept or not: distillation learns from the rejected ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipo_core.sglang.served import served
from pipo_core.sglang.text import text_of


@dataclass
class DraftRecord:
    """The drafts of one step: SGLang's auxiliary output, which rides on its copy of the step's result.

    Attributes:
        draft: the drafted token of each row, ``[B]``.
        confidence: ``c``, ``[B]``.
    """

    draft: torch.Tensor
    confidence: torch.Tensor

    def copy_to_host(self, copy: Callable[[torch.Tensor], torch.Tensor]) -> "DraftRecord":
        """Return the record in host memory, once SGLang has waited for its copies."""
        return DraftRecord(copy(self.draft), copy(self.confidence))

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Give each request of a batch its draft; ``commits`` has None for a request whose step did not count."""
        model = served()
        rows = zip(batch.reqs, commits, self.draft.tolist(), self.confidence.tolist(), strict=True)
        for req, commit, draft, confidence in rows:
            if model is not None and commit is not None:
                text_of(req, model.ids).drafts.append((draft, confidence))
