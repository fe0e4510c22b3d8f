"""How well the confidence head is calibrated: predicted confidence against measured acceptance.

The head predicts a probability: of all drafts with a confidence of 0.8, eight in ten should be accepted. In
distillation acceptance is the probability ``min(1, p_t / p2)`` that the teacher, as a verifier, accepts the sampled
draft. In fine-tuning it is the draft's own probability of the right token, on the teacher's text. Both are the targets
that the head is trained on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_core.tables import ABSENT, Table

BINS = 10
_LAST_SHARE = 0.1
"""The table covers the rows of the log that end in this last share of the steps."""
_MAX_BIAS = 0.05
"""A larger difference of mean confidence and mean acceptance is reported."""
_MIN_DRAFTS = 300
"""With fewer drafts nothing is concluded."""
_MIN_AUC = 0.6
"""Below this AUC the gate hardly tells good drafts from bad ones."""

_ACCEPTANCE = {"train": "probability of the right token", "distill": "acceptance by the teacher"}


def calibration_of(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any] | None:
    """Return bins, errors and findings for a training's last steps; None if it made no drafts.

    Args:
        rows: of metrics, with ``calibration_bins``, for each of ten bins ``[drafts, Σ confidence, Σ acceptance]``, and
            ``calibration_auc``.
        kind: ``train`` or ``distill``.

    Returns:
        ``drafts``; ``steps``, the first and the last that they are from; ``confidence`` and ``acceptance``, means;
        ``ece``, ``Σ_b n_b / N · |confidence_b − acceptance_b|``; ``auc``, the probability that an accepted draft has a
        higher confidence than a rejected one, as a mean over the rows weighted by drafts, None where it is undefined;
        ``bins``; and ``findings``.
    """
    with_bins = [row for row in rows if row.get("calibration_bins")]
    if not with_bins:
        return None
    end = with_bins[-1]["step"]
    last = [row for row in with_bins if row["step"] > (1 - _LAST_SHARE) * end]
    before = [row["step"] for row in with_bins if row["step"] < last[0]["step"]]
    sums = [[sum(row["calibration_bins"][place][part] for row in last) for part in range(3)] for place in range(BINS)]
    drafts = sum(count for count, _, _ in sums)
    if not drafts:
        return None
    ranked = [
        (row["calibration_auc"], sum(count for count, _, _ in row["calibration_bins"]))
        for row in last
        if row.get("calibration_auc") is not None
    ]
    found = {
        "kind": kind,
        "drafts": int(drafts),
        "steps": [max(before, default=0) + 1, end],
        "confidence": sum(confidence for _, confidence, _ in sums) / drafts,
        "acceptance": sum(acceptance for _, _, acceptance in sums) / drafts,
        "ece": sum(abs(confidence - acceptance) for _, confidence, acceptance in sums) / drafts,
        "auc": sum(auc * weight for auc, weight in ranked) / sum(weight for _, weight in ranked) if ranked else None,
        "bins": [
            {
                "from": place / BINS,
                "to": (place + 1) / BINS,
                "drafts": int(count),
                "confidence": confidence / count if count else None,
                "acceptance": acceptance / count if count else None,
            }
            for place, (count, confidence, acceptance) in enumerate(sums)
        ],
    }
    return {**found, "findings": _findings(found)}


def _findings(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that is wrong with drafts or gate, and what may help; one line if nothing is."""
    confidence, acceptance, auc = found["confidence"], found["acceptance"], found["auc"]
    lines = []
    if found["drafts"] < _MIN_DRAFTS:
        return [f"{found['drafts']:,} drafts are too few to judge the gate by."]
    if acceptance < 0.5:
        lines.append(
            f"The drafts are the limit, not the gate: on average only {acceptance:.2f} is accepted. Train longer, or "
            "with a larger loss.mtp."
        )
    if confidence > acceptance + _MAX_BIAS:
        lines.append(
            f"The gate is too sure: it says {confidence:.2f} where {acceptance:.2f} is accepted. Decode with a higher "
            "τ, or train it further (pipo distill, or a larger loss.confidence)."
        )
    if confidence < acceptance - _MAX_BIAS:
        lines.append(
            f"The gate is too timid: it says {confidence:.2f} where {acceptance:.2f} is accepted, so good drafts are "
            "dropped. Decode with a lower τ, or train it further (pipo distill, or a larger loss.confidence)."
        )
    if auc is not None and auc < _MIN_AUC and 0.05 < acceptance < 0.95:
        lines.append(
            f"The gate hardly tells good drafts from bad ones (AUC {auc:.2f}; a coin has 0.5). Train it further: its "
            "loss must fall below that of a gate that always says the mean."
        )
    return lines or [f"The gate says what is measured: {confidence:.2f} on average, {acceptance:.2f} accepted."]


def calibration_table(found: Mapping[str, Any]) -> Table:
    """Return a table of confidence against acceptance, with a row for each bin that has drafts.

    Args:
        found: as `calibration_of` returned it.
    """
    auc = ABSENT if found["auc"] is None else f"{found['auc']:.3f}"
    first, last = found["steps"]
    title = (
        f"the gate, on {found['drafts']:,} drafts of steps {first:,} to {last:,}: "
        f"expected calibration error {found['ece']:.3f}, AUC {auc}"
    )
    rows = [
        [
            f"{row['from']:.1f} to {row['to']:.1f}",
            f"{100 * row['drafts'] / found['drafts']:.1f}",
            f"{row['confidence']:.3f}",
            f"{row['acceptance']:.3f}",
        ]
        for row in found["bins"]
        if row["drafts"]
    ]
    return Table(title, ["confidence", "drafts %", "mean confidence", f"mean {_ACCEPTANCE[found['kind']]}"], rows)
