"""Counts confidence against acceptance over the micro-batches of a row of the log, and over all processes."""

import torch
from swift.metrics.utils import Metric

from pipo_core.train.calibration import BINS

_MAX_LOGIT = 12.0
_BINS_PER_LOGIT = 10
"""Drafts are ranked by the logit of their confidence; finer differences than a bin count as ties."""


class GateMetric(Metric):
    """Bins of confidence, and the area under the ROC curve (`pipo_core.train.calibration`).

    A draft that is accepted with probability ``t`` counts as ``t`` accepted and ``1 − t`` rejected ones.
    """

    def __init__(self, device: torch.device) -> None:
        """Start to count.

        Args:
            device: where the counts are added up.
        """
        super().__init__()
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start a new row of the log."""
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=self._device)
        self._ranks = torch.zeros(
            int(2 * _MAX_LOGIT * _BINS_PER_LOGIT) + 1, 2, dtype=torch.float64, device=self._device
        )

    def update(self, confidence: torch.Tensor, acceptance: torch.Tensor) -> None:
        """Add drafts; those with NaN or infinite values are left out.

        Args:
            confidence: ``[N]``, in [0, 1].
            acceptance: ``[N]``, in [0, 1].
        """
        both = torch.stack([confidence, acceptance]).detach().to(self._device, torch.float64)
        c, t = both[:, both.isfinite().all(dim=0)]
        place = (c * BINS).long().clamp(0, BINS - 1)
        self._bins.index_add_(0, place, torch.stack([torch.ones_like(c), c, t], dim=1))
        rank = ((c.logit(eps=1e-9).clamp(-_MAX_LOGIT, _MAX_LOGIT) + _MAX_LOGIT) * _BINS_PER_LOGIT).round().long()
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
