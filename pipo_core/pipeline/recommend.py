"""The threshold to use: the one with the most tokens a slot whose accuracy is near the baseline's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARGIN = 0.05
"""How far avg@k may be below the baseline's: 5 points."""


@dataclass(frozen=True)
class Recommendation:
    """The recommended entry of an evaluation's `arms`.

    Attributes:
        arm: the entry.
        unit: the unit of the budget that decided: tokens or slots.
        within: whether its accuracy is within the margin. If no entry is, `arm` is the one nearest to the baseline.
    """

    arm: Mapping[str, Any]
    unit: str
    within: bool

    @property
    def figures(self) -> Mapping[str, Any]:
        """Return the entry's figures at the budget that decided."""
        figures: Mapping[str, Any] = self.arm["budgets"][self.unit]
        return figures

    @property
    def certain(self) -> bool:
        """Return whether the whole 95 % interval of the difference is within the margin, not only the estimate."""
        return bool(self.figures["difference"]["low"] >= -MARGIN)


def recommend(results: Mapping[str, Any], unit: str) -> Recommendation | None:
    """Return the threshold to use at one budget, or None without a baseline or without thresholds.

    Of the entries with a threshold whose avg@k is at most `MARGIN` below the baseline's, it is the one with the most
    tokens a slot, and of two equal ones the more accurate. If no entry is within the margin, it is the one with the
    highest accuracy.

    Args:
        results: the results of `run_eval`.
        unit: the unit of the budget: tokens or slots.
    """
    candidates = [
        Recommendation(arm, unit, arm["budgets"][unit]["difference"]["value"] >= -MARGIN)
        for arm in results["arms"]
        if arm["tau"] is not None and arm["budgets"][unit]["difference"] is not None
    ]
    near = [candidate for candidate in candidates if candidate.within]
    if near:
        return max(near, key=lambda c: (c.figures["tokens_per_slot"] or 0.0, c.figures["difference"]["value"]))
    return max(candidates, key=lambda c: float(c.figures["difference"]["value"]), default=None)
