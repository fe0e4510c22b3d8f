"""Tables of an evaluation's results."""

from collections.abc import Mapping
from typing import Any

from pipo_core.tables import ABSENT, Table, without_empty_columns


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return a table for each budget of the results of `run_eval`, tokens first; accuracies are in percent."""
    return [_budget_table(results, unit, limit) for unit, limit in results["budget"].items()]


def parity_table(results: Mapping[str, Any]) -> Table | None:
    """Return each arm's accuracy, in percent, for prompts with an odd and an even number of tokens.

    Returns:
        The table; None if the engines did not report the length of prompts.
    """
    unit = next(iter(results["budget"]))
    parities = [arm["budgets"][unit].get("parity") or {} for arm in results["arms"]]
    names = [name for name in ("odd", "even") if all(name in parity for parity in parities)]
    if not names:
        return None
    title = (
        f"{results['suite']}, avg@{results['samples']} % by the number of tokens in the prompt; "
        "only an even prompt fills its last slot"
    )
    columns = ["arm", "τ", *(f"{name} ({parities[0][name]['problems']} problems)" for name in names)]
    rows = [
        [arm["arm"], _gate_text(arm), *(_value_with_side(parity[name]["avg"]) for name in names)]
        for arm, parity in zip(results["arms"], parities, strict=True)
    ]
    return without_empty_columns(Table(title, columns, rows))


def _budget_table(results: Mapping[str, Any], unit: str, limit: int) -> Table:
    """Return the table of one budget: a row for each arm."""
    samples = results["samples"]
    title = (
        f"{results['suite']}, {results['problems']} problems × {samples} answers, "
        f"at most {limit:,} {unit} an answer; ± and [ ] are 95 % intervals"
    )
    columns = [
        "arm",
        "τ",
        f"avg@{samples} %",
        f"pass@{samples} %",
        f"Δ to {results['baseline']}" if results["baseline"] else "Δ",
        "tokens a slot",
        "steps an answer",
        "drafts kept %",
        "tokens an answer",
        "finished %",
    ]
    rows = [_arm_row(arm, unit, samples) for arm in results["arms"]]
    return without_empty_columns(Table(title, columns, rows))


def _arm_row(arm: Mapping[str, Any], unit: str, samples: int) -> list[str]:
    at = arm["budgets"][unit]
    difference = at["difference"]
    return [
        arm["arm"],
        _gate_text(arm),
        _value_with_side(at["avg"]),
        _value_with_side(at["pass"][str(samples)]),
        ABSENT
        if difference is None
        else "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{k: 100 * v for k, v in difference.items()}),
        ABSENT if at["tokens_per_slot"] is None else f"{at['tokens_per_slot']:.2f}",
        ABSENT if at["tokens_per_slot"] is None else f"{at['mean_tokens'] / at['tokens_per_slot']:.1f}",
        ABSENT if at.get("drafts_kept") is None else f"{100 * at['drafts_kept']:.1f}",
        f"{at['mean_tokens']:.1f}",
        f"{100 * at['finished']:.1f}",
    ]


def _value_with_side(estimate: Mapping[str, float]) -> str:
    """Return the value and the longer side of its interval, since the sides differ near 0 and 100 %."""
    side = max(estimate["high"] - estimate["value"], estimate["value"] - estimate["low"])
    return f"{100 * estimate['value']:.1f} ± {100 * side:.1f}"


def _gate_text(arm: Mapping[str, Any]) -> str:
    """Return what decided which drafts were kept: the threshold, or a coin and its probability."""
    if arm.get("acceptance") is not None:
        return f"coin {100 * arm['acceptance']:.3g} %"
    return ABSENT if arm["tau"] is None else f"{arm['tau']:g}"
