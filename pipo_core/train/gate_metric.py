"""Counts, over the passes of a log row and all processes, how confidence and acceptance go together."""

import torch
from swift.metrics.utils import Metric

from pipo_core.train.calibration import BINS

_LOGITS = 12.0
_STEPS = 10
"""Bins a unit of the logit, by which drafts are ranked; finer differences count as ties."""


class GateMetric(Metric):
    """Bins of confidence for the table, and the area under the curve (`calibration`).

    A draft that is accepted with chance ``t`` counts as ``t`` accepted and ``1 − t`` rejected ones.
    """

    def __init__(self, device: torch.device) -> None:
        """Count on ``device``."""
        super().__init__()
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start a new row."""
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=self._device)
        self._ranks = torch.zeros(int(2 * _LOGITS * _STEPS) + 1, 2, dtype=torch.float64, device=self._device)

    def update(self, confidence: torch.Tensor, acceptance: torch.Tensor) -> None:
        """Add drafts: both ``[N]``, in [0, 1]; such as are no numbers are left out."""
        both = torch.stack([confidence, acceptance]).detach().to(self._device, torch.float64)
        c, t = both[:, both.isfinite().all(dim=0)]
        place = (c * BINS).long().clamp(0, BINS - 1)
        self._bins.index_add_(0, place, torch.stack([torch.ones_like(c), c, t], dim=1))
        rank = ((c.logit(eps=1e-9).clamp(-_LOGITS, _LOGITS) + _LOGITS) * _STEPS).round().long()
        self._ranks.index_add_(0, rank, torch.stack([t, 1 - t], dim=1))

    def compute(self) -> dict[str, list[list[float]] | float | None]:
        """Return ``bins``, ten times ``[drafts, Σ confidence, Σ acceptance]``, and ``auc``; None without drafts."""
        if torch.distributed.is_initialized():
            for counts in (self._bins, self._ranks):
                torch.distributed.all_reduce(counts)
        if not self._bins[:, 0].sum():
            return {"bins": None, "auc": None}
        accepted, rejected = self._ranks.unbind(1)
        lower = rejected.cumsum(0) - rejected / 2  # ties count half
        pairs = accepted.sum() * rejected.sum()
        auc = ((accepted * lower).sum() / pairs).item() if pairs else None
        return {"bins": [[round(value, 4) for value in row] for row in self._bins.tolist()], "auc": auc}
