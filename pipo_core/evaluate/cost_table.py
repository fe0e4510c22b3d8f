"""Tables of what answers cost, and of the accuracy that a limited cost allows."""

from collections.abc import Mapping
from typing import Any

from pipo_core.evaluate.words import count_text, gate_text, gigabytes_text, limit_text, percent, seconds_text
from pipo_core.tables import ABSENT, Table, without_empty_columns

_SHOWN = {"tokens": count_text, "steps": count_text, "seconds": seconds_text, "bytes": gigabytes_text}
_UNITS = {"tokens": "tokens", "steps": "steps", "seconds": "s", "bytes": "GB read"}
_CURVES = {"tokens": "tokens", "slots": "steps", "bytes": "bytes read"}


def cost_table(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    """Return what an answer and a right answer cost, one row an arm; a right answer carries the cost of the wrong ones.

    Args:
        results: of one suite.
        unit: of the budget.
        asked: the beginning of the title.
    """
    columns = ["arm", "τ", "tokens a slot", "drafts kept %", "cut off"]
    columns += [f"{_UNITS[name]} an answer" for name in _SHOWN]
    columns += [f"{_UNITS[name]} a right answer" for name in _SHOWN]
    rows = []
    for arm in results["arms"]:
        at = arm["budgets"][unit]
        per_slot, kept, cost = at["tokens_per_slot"], at["drafts_kept"], at["cost"]
        rows.append(
            [
                arm["arm"],
                gate_text(arm),
                ABSENT if per_slot is None else f"{per_slot:.2f}",
                ABSENT if kept is None else percent(kept),
                f"{cost['cut']:,}",
                *(show(cost["answer"][name]) for name, show in _SHOWN.items()),
                *(show(cost["right"][name]) for name, show in _SHOWN.items()),
            ]
        )
    title = f"{asked}: what an answer costs; a right answer carries the cost of the wrong ones"
    return without_empty_columns(Table(title, columns, rows, note=_note(results)))


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
        notes.append(f"GB read: estimated from the shape, {results['cost_batch']} sequences sharing a step's weights.")
    return " ".join(notes)
