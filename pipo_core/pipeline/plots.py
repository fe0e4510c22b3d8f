"""Plots of trainings and evaluations.

Each function takes a job's figures (rows of `metrics.jsonl`, `results.json`), draws the plots that they allow and
returns the files, none if there is nothing to draw.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipo_core.pipeline.drawing import COLOURS, FONT, GREY, MARKERS, WIDTH, new_figure, save, style

LOSSES = {
    "loss": "sum",
    "backbone_loss": "backbone (first token)",
    "mtp_loss": "MTP (second token)",
    "confidence_loss": "confidence",
}
_NEAR_POINTS = 3.0
"""Percent of accuracy within which labels are joined."""
MANY = 60
"""From this many points on, a moving average is drawn over the single points."""

Row = Mapping[str, Any]


def training(rows: Sequence[Row], folder: Path, name: str = "training") -> list[Path]:
    """Draw the losses over steps and, if they were logged, confidence and acceptance; return the files."""
    files = []
    losses = {label: key for key, label in LOSSES.items() if _logged(rows, key)}
    if "backbone_loss" in losses.values() and len(losses) == 2:
        losses.pop("sum")  # with one loss, the sum is the same curve
    if losses:
        figure, axes = new_figure("optimizer step", "loss (nats a token)")
        for index, (label, key) in enumerate(losses.items()):
            _curve(axes, rows, key, label, index)
        axes.legend(frameon=False)
        files.append(save(figure, folder / f"{name}_loss.png"))
    shares = {
        "confidence_mean": "mean confidence",
        "confidence_target_mean": "mean of what it should say",
        **{key: f"drafts kept at τ = {key.partition('_')[2]}" for key in _acceptance_keys(rows)},
    }
    shares = {key: label for key, label in shares.items() if _logged(rows, key)}
    if shares:
        figure, axes = new_figure("optimizer step", "share")
        for index, (key, label) in enumerate(shares.items()):
            _curve(axes, rows, key, label, index)
        axes.set_ylim(-0.02, 1.02)
        figure.legend(loc="outside lower center", frameon=False, fontsize=FONT - 1, ncols=2)
        files.append(save(figure, folder / f"{name}_confidence.png"))
    return files


def calibration(gate: Row, folder: Path, name: str = "calibration") -> list[Path]:
    """Draw measured acceptance, and the number of drafts, over the gate's confidence; return the files."""
    figure = Figure(figsize=(WIDTH, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    style(upper, "", "measured acceptance")
    style(lower, "confidence", "share of drafts")
    bins = [row for row in gate["bins"] if row["drafts"]]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
    means = [[row[key] for row in bins] for key in ("confidence", "acceptance")]
    upper.plot(*means, marker=MARKERS[0], color=COLOURS[0], label="the gate, by bins of confidence")
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    upper.legend(frameon=False, fontsize=FONT - 1)
    centres = [(row["from"] + row["to"]) / 2 for row in bins]
    lower.bar(centres, [row["drafts"] / gate["drafts"] for row in bins], width=0.09, color=COLOURS[0])
    return [save(figure, folder / f"{name}.png")]


def evaluation(results: Mapping[str, Any], folder: Path, name: str = "eval") -> list[Path]:
    """Draw accuracy with intervals, at each budget, and tokens a slot over the threshold; return the files."""
    arms = results["arms"]
    taus = sorted({arm["tau"] for arm in arms if arm["tau"] is not None})
    if not taus:
        return []
    files = []
    for unit, limit in results["budget"].items():
        figure, axes = new_figure("confidence threshold τ (evenly spaced)", f"avg@{results['samples']} (%)")
        accuracies = {arm["label"]: _percent(arm["budgets"][unit]["avg"]) for arm in arms}
        _over_tau(axes, arms, taus, accuracies, results["baseline"])
        axes.set_title(
            f"{results['problems']} problems, at most {limit:,} {unit} an answer; 95 % intervals",
            fontsize=FONT,
        )
        files.append(save(figure, folder / f"{name}_accuracy_{unit}.png"))
    pairs = [arm for arm in arms if arm["tau"] is not None]
    if any(arm["budgets"]["tokens"]["tokens_per_slot"] is None for arm in pairs):
        return files  # the engine does not report slots
    figure, axes = new_figure("confidence threshold τ (evenly spaced)", "real tokens a slot")
    tokens = {arm["label"]: (arm["budgets"]["tokens"]["tokens_per_slot"],) * 3 for arm in pairs}
    _over_tau(axes, pairs, taus, tokens, None)
    axes.set_ylim(0.95, 2.05)
    files.append(save(figure, folder / f"{name}_tokens_per_slot.png"))
    return files


def trade_off(
    results: Mapping[str, Any], costs: Mapping[str, float], what: str, folder: Path, name: str = "eval_trade_off"
) -> list[Path]:
    """Draw accuracy over a cost, one point for each threshold of an arm and one for each other arm; return the files.

    Args:
        results: of `run_eval`.
        costs: by the arm's label; arms without one are left out.
        what: names the cost, with its unit.
        folder: for the file.
        name: of the file, without its ending.
    """
    unit = next(iter(results["budget"]))
    arms = [arm for arm in results["arms"] if arm["label"] in costs]
    if len(arms) < 2:
        return []
    figure, axes = new_figure(what, f"avg@{results['samples']} (%)")
    for index, arm_name in enumerate(dict.fromkeys(arm["arm"] for arm in arms)):
        of = sorted((arm for arm in arms if arm["arm"] == arm_name), key=lambda arm: arm["tau"] or 0.0)
        values, lows, highs = np.array([_percent(arm["budgets"][unit]["avg"]) for arm in of]).T
        axes.errorbar(
            [costs[arm["label"]] for arm in of],
            values,
            yerr=[values - lows, highs - values],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linewidth=1,
            capsize=3,
            label=arm_name,
        )
        near = 0.03 * (max(costs.values()) - min(costs.values()))
        for text, place in _joined(
            [(f"{arm['tau']:g}", costs[arm["label"]], value) for arm, value in zip(of, values, strict=True)]
            if of[0]["tau"] is not None
            else [],
            near,
        ):
            axes.annotate(text, place, (5, -4 - 12 * (index % 2)), textcoords="offset points", fontsize=FONT - 3)
    axes.set_title("numbers: threshold τ; 95 % intervals", fontsize=FONT)
    axes.legend(frameon=False, fontsize=FONT - 1)
    return [save(figure, folder / f"{name}.png")]


def _joined(points: Sequence[tuple[str, float, float]], near: float) -> list[tuple[str, tuple[float, float]]]:
    """Return the labels of points with their places; those that would lie over each other are joined."""
    groups: list[list[tuple[str, float, float]]] = []
    for point in points:
        if groups and abs(groups[-1][-1][1] - point[1]) < near and abs(groups[-1][-1][2] - point[2]) < _NEAR_POINTS:
            groups[-1].append(point)
        else:
            groups.append([point])
    return [
        (f"{group[0][0]}–{group[-1][0]}" if len(group) > 1 else group[0][0], (max(p[1] for p in group), group[0][2]))
        for group in groups
    ]


def _logged(rows: Sequence[Row], key: str) -> bool:
    return any(row.get(key) is not None for row in rows)


def _acceptance_keys(rows: Sequence[Row]) -> list[str]:
    keys = {key for row in rows for key in row if key.startswith("acceptance_")}
    return sorted(keys, key=lambda key: float(key.partition("_")[2]))


def _curve(axes: Axes, rows: Sequence[Row], key: str, label: str, index: int) -> None:
    """Draw one curve over steps; with many points it is thin, and its moving average is drawn over it."""
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    colour = COLOURS[index % len(COLOURS)]
    dash = "-" if index < len(COLOURS) else "--"
    if len(values) < MANY:
        axes.plot(steps, values, dash, color=colour, label=label)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    window = max(3, len(values) // 30)
    average = np.convolve(values, np.full(window, 1 / window), mode="valid")
    middle = window // 2
    axes.plot(steps[middle : middle + len(average)], average, dash, color=colour, label=label)


def _percent(estimate: Mapping[str, float]) -> tuple[float, float, float]:
    return 100 * estimate["value"], 100 * estimate["low"], 100 * estimate["high"]


def _over_tau(
    axes: Axes,
    arms: Sequence[Row],
    taus: Sequence[float],
    heights: Mapping[str, tuple[float, float, float]],
    baseline: str | None,
) -> None:
    """Arms with thresholds as lines with intervals, the others as level lines; the baseline with its band.

    `heights` are value, lower and upper end by the arm's label.
    """
    place = {tau: index for index, tau in enumerate(taus)}
    swept = list(dict.fromkeys(arm["arm"] for arm in arms if arm["tau"] is not None))
    level = [arm for arm in arms if arm["tau"] is None]
    for index, arm in enumerate(level):
        value, low, high = heights[arm["label"]]
        is_baseline = arm["label"] == baseline
        colour = GREY if is_baseline else COLOURS[(len(swept) + index) % len(COLOURS)]
        if is_baseline:
            axes.axhspan(low, high, color=GREY, alpha=0.15, linewidth=0)
        label = f"{arm['label']} (baseline)" if is_baseline else arm["label"]
        axes.axhline(value, color=colour, linestyle="--" if is_baseline else ":", linewidth=1.8, label=label)
    for index, name in enumerate(swept):
        of = sorted((arm for arm in arms if arm["arm"] == name), key=lambda arm: arm["tau"])
        values, lows, highs = np.array([heights[arm["label"]] for arm in of]).T
        axes.errorbar(
            [place[arm["tau"]] + 0.06 * (index - (len(swept) - 1) / 2) for arm in of],
            values,
            yerr=[values - lows, highs - values] if np.any(highs > lows) else None,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            capsize=4,
            label=name,
        )
    axes.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
    axes.set_xlim(-0.5, len(taus) - 0.5)
    axes.legend(frameon=False, fontsize=FONT - 1)
