"""Figures of the log that are measured with a clock; ms-swift asks each for its value when it logs."""

import time

import torch
from swift.metrics.utils import Metric


class TokenRate(Metric):
    """Tokens a second of wall time since the last row of the log, without PADs, over all processes."""

    def __init__(self, device: torch.device) -> None:
        """Start to count.

        Args:
            device: where the processes' counts are added up.
        """
        super().__init__()
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start a new row of the log."""
        self._tokens = 0
        self._since = time.monotonic()

    def update(self, tokens: int) -> None:
        """Add the tokens of one micro-batch."""
        self._tokens += tokens

    def compute(self) -> dict[str, float | None]:
        """Return tokens a second as ``value``; None if there was no micro-batch."""
        total = torch.tensor(float(self._tokens), dtype=torch.float64, device=self._device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {"value": total.item() / seconds if total else None}


class TimeShare(Metric):
    """The share of wall time since the last row of the log that some work took, or all but that work, in [0, 1]."""

    def __init__(self, *, of_the_rest: bool) -> None:
        """Start the clock.

        Args:
            of_the_rest: measure the time that is not reported to `update`.
        """
        super().__init__()
        self._of_the_rest = of_the_rest
        self.reset()

    def reset(self) -> None:
        """Start a new row of the log."""
        self._since = time.monotonic()
        self._seconds = 0.0

    def update(self, seconds: float) -> None:
        """Add the time of one piece of work."""
        self._seconds += seconds

    def compute(self) -> dict[str, float]:
        """Return the share as ``value``."""
        share = min(self._seconds / max(time.monotonic() - self._since, 1e-9), 1.0)
        return {"value": 1 - share if self._of_the_rest else share}


def synchronised_time() -> float:
    """Return the time, in seconds, after all work that was queued on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
