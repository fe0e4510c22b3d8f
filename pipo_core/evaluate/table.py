"""Tables of an evaluation's results: how accurate each arm is, and what its answers cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_core.tables import ABSENT, Table, without_empty_columns


def suite_results(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the results of each suite of an evaluation; those of older versions had one, without a list."""
    return list(results.get("suites") or [results])


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
    rows = []
    for place, arm in enumerate(suites[0]["arms"]):
        at = [suite["arms"][place]["budgets"][unit] for suite in suites]
        cells = [_avg_and_pass(one, suite["samples"]) for one, suite in zip(at, suites, strict=True)]
        means = _avg_and_pass(
            {
                "avg": {"value": sum(one["avg"]["value"] for one in at) / len(at)},
                "pass": {"n": {"value": sum(_pass_at_all(one) for one in at) / len(at)}},
            },
            max(suite["samples"] for suite in suites),
        )
        rows.append([arm["arm"], _gate_text(arm), *cells, means])
    title = f"all suites, avg / pass of all answers in %, each at its budget of {unit}"
    return without_empty_columns(Table(title, columns, rows))


def _pass_at_all(figures: Mapping[str, Any]) -> float:
    """Return the share of questions of which at least one answer is right."""
    return float(list(figures["pass"].values())[-1]["value"])


def _avg_and_pass(figures: Mapping[str, Any], samples: int) -> str:
    avg = _percent(figures["avg"]["value"])
    return avg if samples == 1 else f"{avg} / {_percent(_pass_at_all(figures))}"


def suite_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of accuracy and of cost for each budget of one suite's results, tokens first.

    Budgets whose figures are the same share their tables. Accuracies and intervals are in percent.
    """
    found: list[Table] = []
    for units in budgets_alike(results):
        limit = " or ".join(f"{results['budget'][unit]:,} {unit}" for unit in units)
        asked = f"{results['suite']}, {results['problems']} problems × {results['samples']} answers, at most {limit}"
        same = "; the figures are the same at both budgets" if len(units) > 1 else ""
        found += [_accuracy(results, units[0], f"{asked}{same}"), _cost(results, units[0], asked)]
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


def _accuracy(results: Mapping[str, Any], unit: str, asked: str) -> Table:
    samples, baseline = results["samples"], results["baseline"]
    columns = [
        "arm",
        "τ",
        f"avg@{samples} %",
        f"pass@{samples} %",
        f"Δ to {baseline}" if baseline else "Δ",
        "finished %",
    ]
    rows = []
    for arm in results["arms"]:
        at = arm["budgets"][unit]
        passed = _percent(at["pass"][str(samples)]["value"]) if samples > 1 else ABSENT
        rows.append(
            [
                arm["arm"],
                _gate_text(arm),
                _share_text(at["avg"]),
                passed,
                _difference_text(at["difference"]),
                _percent(at["finished"]),
            ]
        )
    return without_empty_columns(Table(f"{asked}; [ ] are 95 % intervals", columns, rows))


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
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _gate_text(arm: Mapping[str, Any]) -> str:
    """Return what decided which drafts were kept: the threshold, or a share that is kept without looking."""
    if arm.get("acceptance") is not None:
        return f"{100 * arm['acceptance']:.3g} % blindly"
    return ABSENT if arm["tau"] is None else f"{arm['tau']:g}"
