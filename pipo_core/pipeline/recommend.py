"""The threshold to use: the fastest of those whose accuracy cannot be told from the most accurate one's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recommendation:
    """The recommended entry of an evaluation's `arms`.

    Attributes:
        arm: the entry.
        unit: the unit of the budget that decided: tokens or slots.
    """

    arm: Mapping[str, Any]
    unit: str

    @property
    def figures(self) -> Mapping[str, Any]:
        """Return the entry's figures at the budget that decided."""
        figures: Mapping[str, Any] = self.arm["budgets"][self.unit]
        return figures

    @property
    def loses(self) -> bool:
        """Return whether the whole 95 % interval of the difference is below the baseline."""
        return bool(self.figures["difference"]["high"] < 0)


def recommend(results: Mapping[str, Any], unit: str) -> Recommendation | None:
    """Return the threshold to use at one budget, or None without a baseline or without thresholds.

    Of the entries with a threshold whose avg@k is not below the 95 % interval of the most accurate one's, it is the one
    with the most tokens a slot, and of two equal ones the more accurate.

    Args:
        results: the results of `run_eval`.
        unit: the unit of the budget: tokens or slots.
    """
    candidates = [
        Recommendation(arm, unit)
        for arm in results["arms"]
        if arm["tau"] is not None and arm["budgets"][unit]["difference"] is not None
    ]
    if not candidates:
        return None
    best = max(candidates, key=lambda found: float(found.figures["avg"]["value"]))
    near = [found for found in candidates if found.figures["avg"]["value"] >= best.figures["avg"]["low"]]
    return max(near, key=lambda found: (found.figures["tokens_per_slot"] or 0.0, found.figures["avg"]["value"]))
