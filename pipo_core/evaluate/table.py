"""Tables of an evaluation's results: how accurate each arm is, by one answer and by several, and what answers cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_core.evaluate.cost_table import cost_tables, curve_tables
from pipo_core.evaluate.words import gate_text, percent
from pipo_core.tables import ABSENT, Table, without_empty_columns


def suite_results(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of each suite of an evaluation; those of older versions had one, without a list."""
    return list(results.get("suites") or [results])


def suites_of_stages(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the results of each suite by the name of its stage, and of its own where a stage has several: eval/math.

    Args:
        stages: results of `run_eval` by the names of stages.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, results in stages.items():
        suites = suite_results(results)
        for suite in suites:
            found[name if len(suites) == 1 else f"{name}/{suite['suite']}"] = suite
    return found


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of accuracy and of cost of each suite, and of all together, of the results of `run_eval`."""
    suites = suite_results(results)
    found = [table for suite in suites for table in suite_tables(suite)]
    return [*found, overall_table(suites)] if len(suites) > 1 else found


def overall_table(suites: Sequence[Mapping[str, Any]]) -> Table:
    """Return each arm's accuracy in every suite and its mean over the suites, in percent, as the paper's table has it.

    Args:
        suites: the results of each suite, with the same arms.
    """
    budgets = ("slots", "tokens")
    unit = next(unit for unit in budgets if all(unit in suite["budget"] for suite in suites))
    columns = ["arm", "τ", *(suite["suite"] for suite in suites), "mean"]
    samples = {suite["samples"] for suite in suites}
    alike = len(samples) == 1 and 1 not in samples  # else pass would mix pass@1 and pass@4
    rows = []
    for place, arm in enumerate(suites[0]["arms"]):
        at = [suite["arms"][place]["budgets"][unit] for suite in suites]
        cells = [_avg_and_pass(one, alike) for one in at]
        mean = {
            "avg": {"value": sum(one["avg"]["value"] for one in at) / len(at)},
            "pass": {"n": {"value": sum(_pass_at_all(one) for one in at) / len(at)}},
        }
        means = _avg_and_pass(mean, alike)
        rows.append([arm["arm"], gate_text(arm), *cells, means])
    what = f"avg@{samples.pop()} / pass of all answers" if alike else "avg"
    title = f"all suites, {what} in %, each at its budget of {unit}"
    return without_empty_columns(Table(title, columns, rows))


def _pass_at_all(figures: Mapping[str, Any]) -> float:
    """Return the share of questions of which at least one answer is right."""
    return float(list(figures["pass"].values())[-1]["value"])


def _avg_and_pass(figures: Mapping[str, Any], both: bool) -> str:
    avg = percent(figures["avg"]["value"])
    return f"{avg} / {percent(_pass_at_all(figures))}" if both else avg


def suite_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of accuracy, pass@k and cost at each budget of a suite, tokens first, and its curves.

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
        found += cost_tables(results, units[0], asked)
    return [*found, *curve_tables(results)]


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
        [arm["arm"], gate_text(arm), *(_share_text(parity[name]["avg"]) for name in names)]
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
                gate_text(arm),
                _share_text(at["avg"]),
                _difference_text(at["difference"]),
                percent(at["finished"]),
            ]
        )
    title = f"{asked}; [ ] are 95 % intervals"
    notes = [detectable_note(results, unit), *(proof["words"] for proof in results.get("lossless", ()))]
    return without_empty_columns(Table(title, columns, rows, note=" ".join(filter(None, notes))))


def _passes(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    samples = results["samples"]
    powers = [2**power for power in range(1, samples.bit_length()) if 2**power < samples]
    shown = [*powers, samples]
    rows = [
        [arm["arm"], gate_text(arm), *(_share_text(arm["budgets"][unit]["pass"][str(k)]) for k in shown)]
        for arm in results["arms"]
    ]
    title = f"{asked}: problems that one of k answers solves; pass@1 is avg@{samples}"
    return without_empty_columns(Table(title, ["arm", "τ", *(f"pass@{k} %" for k in shown)], rows))


def _share_text(estimate: Mapping[str, float]) -> str:
    value, low, high = (percent(estimate[name]) for name in ("value", "low", "high"))
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
