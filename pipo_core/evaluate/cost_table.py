"""Tables of what answers cost, and of the accuracy that a limited cost allows."""

from collections.abc import Mapping
from typing import Any

from pipo_core.evaluate.words import count_text, gate_text, gigabytes_text, limit_text, percent, seconds_text
from pipo_core.tables import ABSENT, Table, without_empty_columns

_SHOWN = {"tokens": count_text, "steps": count_text, "seconds": seconds_text, "bytes": gigabytes_text}
_UNITS = {"tokens": "tokens", "steps": "steps", "seconds": "s", "bytes": "GB read"}
_CURVES = {"tokens": "tokens", "slots": "steps", "bytes": "bytes read"}


def cost_tables(results: Mapping[str, Any], unit: str, asked: str) -> list[Table]:
    """Return what an answer costs, and what a right answer costs, one row an arm.

    Args:
        results: of one suite.
        unit: of the budget.
        asked: the beginning of the titles.
    """
    answers, rights = [], []
    for arm in results["arms"]:
        at, named = arm["budgets"][unit], [arm["arm"], gate_text(arm)]
        per_slot, kept, cost = at["tokens_per_slot"], at["drafts_kept"], at["cost"]
        drafts = [ABSENT if per_slot is None else f"{per_slot:.2f}", ABSENT if kept is None else percent(kept)]
        answers.append([*named, *drafts, f"{cost['cut']:,}", *_cells(cost["answer"])])
        rights.append([*named, *_cells(cost["right"])])
    columns = ["arm", "τ", "tokens a slot", "drafts kept %", "cut off", *_UNITS.values()]
    each = Table(f"{asked}: what an answer costs on average", columns, answers)
    title = f"{asked}: what a right answer costs; it carries the cost of the wrong ones"
    right = Table(title, ["arm", "τ", *_UNITS.values()], rights, note=_note(results))
    return [without_empty_columns(each), without_empty_columns(right)]


def _cells(cost: Mapping[str, float | None]) -> list[str]:
    return [show(cost[name]) for name, show in _SHOWN.items()]


def curve_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return each arm's accuracy over limits in tokens, in steps and in bytes, one table each.

    Args:
        results: of one suite.
    """
    found = []
    for unit, curve in results["curves"].items():
        rows = [
            [arm["arm"], gate_text(arm), *(percent(value) for value in curve["arms"][arm["label"]])]
            for arm in results["arms"]
            if arm["label"] in curve["arms"]
        ]
        what = f"{_CURVES[unit]} an answer"
        if unit == "bytes":
            what += f", as many as {curve['of']} reads for so many tokens"
        title = f"{results['suite']}: avg@{results['samples']} % within a limit of {what}"
        limits = [limit_text(limit) for limit in curve["limits"]]
        found.append(without_empty_columns(Table(title, ["arm", "τ", *limits], rows)))
    return found


def _note(results: Mapping[str, Any]) -> str:
    """Return how seconds and bytes were found, as far as the table shows them."""
    costs = [next(iter(arm["budgets"].values()))["cost"]["answer"] for arm in results["arms"]]
    notes = []
    if any(cost["seconds"] is not None for cost in costs):
        engines = dict.fromkeys(f"{arm['engine']['kind']}, {arm['engine']['at_once']}" for arm in results["arms"])
        notes.append(f"s: wall time of the engine over its answers ({'; '.join(engines)} at once).")
    if any(cost["bytes"] is not None for cost in costs):
        batch = results["cost_batch"]
        shared = "alone" if batch == 1 else f"{batch} sequences sharing a step's weights"
        notes.append(f"GB read: estimated from the shape, {shared}.")
    return " ".join(notes)
