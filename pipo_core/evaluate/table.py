"""Tables of an evaluation's results: how accurate each arm is, by one answer and by several, and what answers cost."""

from collections.abc import Mapping
from typing import Any

from pipo_core.tables import ABSENT, Table, without_empty_columns


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of accuracy, pass@k and cost for each budget of the results of `run_eval`, tokens first.

    Budgets whose figures are the same share their tables. Without several answers to a problem there is no pass@k.
    Accuracies and intervals are in percent.
    """
    found: list[Table] = []
    for units in budgets_alike(results):
        limit = " or ".join(f"{results['budget'][unit]:,} {unit}" for unit in units)
        asked = f"{results['suite']}, {results['problems']} problems × {results['samples']} answers, at most {limit}"
        same = "; the figures are the same at both budgets" if len(units) > 1 else ""
        found.append(_accuracy(results, units[0], f"{asked}{same}"))
        if results["samples"] > 1:
            found.append(_passes(results, units[0], asked))
        found.append(_cost(results, units[0], asked))
    return found


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
        [arm["arm"], _gate_text(arm), *(_share_text(parity[name]["avg"]) for name in names)]
        for arm, parity in zip(results["arms"], parities, strict=True)
    ]
    return without_empty_columns(Table(title, columns, rows))


def steps_of_an_answer(figures: Mapping[str, Any]) -> float | None:
    """Return the mean number of decode steps an answer takes; None if the engine does not report slots."""
    per_slot = figures["tokens_per_slot"]
    return figures["mean_tokens"] / per_slot if per_slot else None


def budgets_alike(results: Mapping[str, Any]) -> list[list[str]]:
    """Return the budgets' units, those with the same figures of every arm together."""
    groups: list[list[str]] = []
    for unit in results["budget"]:
        for group in groups:
            if all(arm["budgets"][unit] == arm["budgets"][group[0]] for arm in results["arms"]):
                group.append(unit)
                break
        else:
            groups.append([unit])
    return groups


def detectable_note(results: Mapping[str, Any], unit: str) -> str:
    """Return which differences an evaluation of this size cannot show; empty if the results do not say it.

    With a baseline the others' observed differences to it tell; without one it is what one of these arms would show
    against another whose answers vary alike.
    """
    arms = [arm["budgets"][unit] for arm in results["arms"]]
    compared = [at for at in arms if at["difference"] is not None]
    chosen = [at for at in compared or arms if "detectable" in at]
    if not chosen:
        return ""
    size = f"{results['problems']} problems × {results['samples']} answers"
    shown = [100 * at["detectable"] for at in chosen if at["detectable"] is not None]
    if not shown:
        return f"{size} cannot see any difference (80 % power, 5 % level)."
    least, most = f"{min(shown):.1f}", f"{max(shown):.1f}"
    points = least if least == most else f"{least} to {most}"
    why = "" if compared else ", against an arm whose answers vary alike"
    return f"{size} cannot see a difference below {points} points (80 % power, 5 % level{why})."


def _accuracy(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    samples, baseline = results["samples"], results["baseline"]
    columns = ["arm", "τ", f"avg@{samples} %", f"Δ to {baseline}" if baseline else "Δ", "finished %"]
    rows = []
    for arm in results["arms"]:
        at = arm["budgets"][unit]
        rows.append(
            [
                arm["arm"],
                _gate_text(arm),
                _share_text(at["avg"]),
                _difference_text(at["difference"]),
                _percent(at["finished"]),
            ]
        )
    title = f"{asked}; [ ] are 95 % intervals"
    return without_empty_columns(Table(title, columns, rows, note=detectable_note(results, unit)))


def _passes(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    samples = results["samples"]
    powers = [2**power for power in range(1, samples.bit_length()) if 2**power < samples]
    shown = [*powers, samples]
    rows = [
        [arm["arm"], _gate_text(arm), *(_share_text(arm["budgets"][unit]["pass"][str(k)]) for k in shown)]
        for arm in results["arms"]
    ]
    title = f"{asked}: problems that one of k answers solves; pass@1 is avg@{samples}"
    return without_empty_columns(Table(title, ["arm", "τ", *(f"pass@{k} %" for k in shown)], rows))


def _cost(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    columns = [
        "arm",
        "τ",
        "tokens a slot",
        "drafts kept %",
        "tokens an answer",
        "steps an answer",
        "steps a right answer",
    ]
    rows = []
    for arm in results["arms"]:
        at = arm["budgets"][unit]
        per_slot, kept, steps = at["tokens_per_slot"], at["drafts_kept"], steps_of_an_answer(at)
        right = at["avg"]["value"]
        rows.append(
            [
                arm["arm"],
                _gate_text(arm),
                ABSENT if per_slot is None else f"{per_slot:.2f}",
                ABSENT if kept is None else _percent(kept),
                f"{at['mean_tokens']:.1f}",
                ABSENT if steps is None else f"{steps:.1f}",
                ABSENT if steps is None or right == 0 else f"{steps / right:.1f}",
            ]
        )
    title = f"{asked}: what an answer costs; a right answer carries the steps of the wrong ones"
    return without_empty_columns(Table(title, columns, rows))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _share_text(estimate: Mapping[str, float]) -> str:
    value, low, high = (_percent(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _difference_text(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ABSENT
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]{_p_text(estimate)}"


def _p_text(difference: Mapping[str, float]) -> str:
    """Return the p-value behind a comma; empty for results of versions that had none."""
    if "p" not in difference:
        return ""
    return ", p < 0.001" if difference["p"] < 0.001 else f", p = {difference['p']:.3f}"


def _gate_text(arm: Mapping[str, Any]) -> str:
    """Return what decided which drafts were kept: the threshold, or a share that is kept without looking."""
    if arm.get("acceptance") is not None:
        return f"{100 * arm['acceptance']:.3g} % blindly"
    return ABSENT if arm["tau"] is None else f"{arm['tau']:g}"
