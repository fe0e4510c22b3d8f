"""Which threshold to use: the most tokens a slot among those that keep accuracy near the baseline's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARGIN = 0.05
"""How far avg@k may lie below the baseline's: 5 points."""


@dataclass(frozen=True)
class Recommendation:
    """The chosen run of an evaluation (an entry of its `arms`) and whether it keeps to the margin.

    Where none does (`within` is False) it is the run that comes nearest to the baseline.
    """

    arm: Mapping[str, Any]
    unit: str
    within: bool

    @property
    def figures(self) -> Mapping[str, Any]:
        """The run's figures at the budget that decided."""
        figures: Mapping[str, Any] = self.arm["budgets"][self.unit]
        return figures

    @property
    def certain(self) -> bool:
        """Whether the whole 95 % interval of the difference keeps to the margin, not only the estimate."""
        return bool(self.figures["difference"]["low"] >= -MARGIN)


def recommend(results: Mapping[str, Any], unit: str) -> Recommendation | None:
    """Return the threshold to use at the budget in `unit`, from what `run_eval` returned.

    Among the runs with a threshold whose avg@k is at most `MARGIN` below the baseline's: the one with the
    most tokens a slot, and the more accurate of two equal ones. If none is so near, the nearest. None without
    a baseline or without runs that have a threshold.
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
