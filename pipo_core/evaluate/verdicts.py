"""Sentences about an evaluation: who is cheaper where, and where pairs do not pay."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipo_core.evaluate.words import limit_text, percent
from pipo_core.recipes.methods import METHODS

_NAMES = {"steps": "steps", "bytes": "bytes read", "seconds": "seconds"}
_EQUAL = 0.005
"""Accuracies that differ by less, in shares, are not called ahead, nor costs, as ratios, lower."""


def verdicts(results: Mapping[str, Any], labels: Collection[str] | None = None) -> list[str]:
    """Return one sentence for each arm against the baseline, and one about equal bytes; none without a baseline.

    Args:
        results: of one suite.
        labels: the arms that are told against the baseline; None for all.
    """
    return [*_against_baseline(results, labels), *_at_equal_bytes(results)]


def _against_baseline(results: Mapping[str, Any], labels: Collection[str] | None) -> Iterator[str]:
    """Yield what a right answer costs by each arm, as ratios to the baseline's.

    An arm pays if a right answer takes fewer bytes, or fewer steps where bytes are not known, and its accuracy is not
    below the baseline's by more than chance. Arms are told that draft, or that another engine answers for.
    """
    unit = "slots" if "slots" in results["budget"] else "tokens"
    base = next((arm for arm in results["arms"] if arm["label"] == results["baseline"]), None)
    if base is None:
        return
    ground = base["budgets"][unit]["cost"]["right"]
    where = f"{results['suite']}, at most {limit_text(results['budget'][unit])} {unit}"
    for arm in results["arms"]:
        at = arm["budgets"][unit]
        if labels is not None and arm["label"] not in labels:
            continue
        if arm is base or not (METHODS[arm["method"]].uses_mtp or arm["engine"] != base["engine"]):
            continue
        own = at["cost"]["right"]
        if own["tokens"] is None and ground["tokens"] is not None:
            yield f"{where}: **`{arm['label']}` does not pay here**: it gave no right answer, `{base['label']}` did."
            continue
        ratios = {name: own[name] / ground[name] for name in _NAMES if own[name] and ground[name]}
        if not ratios:
            yield f"{where}: `{arm['label']}` or `{base['label']}` gave no right answer: nothing can be said of cost."
            continue
        told = ", ".join(f"{ratio:.2f}× the {_NAMES[name]}" for name, ratio in ratios.items())
        decisive = ratios.get("bytes", ratios.get("steps", ratios.get("seconds", 1.0)))
        difference = at["difference"]
        lossy = difference is not None and difference["high"] < 0
        cheaper = decisive < 1 - _EQUAL
        verdict = "is cheaper here, and less accurate" if lossy else "pays here"
        said = f"**`{arm['label']}` {verdict if cheaper else 'does not pay here'}**"
        loss = f" Its accuracy is lower by {-100 * difference['value']:.1f} points." if lossy else ""
        yield f"{where}: {said}: a right answer takes {told} of one by `{base['label']}`.{loss}"


def _at_equal_bytes(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield who is most accurate at each limit of bytes, neighbouring limits with the same arms together."""
    curve = results["curves"].get("bytes")
    if curve is None or len(curve["arms"]) < 2:
        return
    spans: list[tuple[list[str], list[int], list[float]]] = []  # who is ahead, at which limits, how accurate
    for place, limit in enumerate(curve["limits"]):
        values = {label: accuracies[place] for label, accuracies in curve["arms"].items()}
        best = max(values.values())
        ahead = [label for label, value in values.items() if best - value < _EQUAL]
        if best == 0:
            continue
        if not spans or spans[-1][0] != ahead:
            spans.append((ahead, [], []))
        spans[-1][1].append(limit)
        spans[-1][2].append(best)
    told = [
        f"{_span([limit_text(limit) for limit in limits])}: {', '.join(f'`{label}`' for label in ahead)} "
        f"({_span([percent(best) for best in bests])} %)"
        for ahead, limits, bests in spans
    ]
    if told:
        yield (
            f"{results['suite']}: most accurate of these answers at the bytes that `{curve['of']}` reads for so many "
            f"tokens (small differences may be chance) — {'; '.join(told)}."
        )


def _span(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
