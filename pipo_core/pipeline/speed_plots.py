"""Plots of a bench: times of a request, throughput, and speed-ups by users against the limits' own.

Each function takes the results of `run_bench`, draws what they hold and returns the files, none if there is nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipo_core.pipeline.drawing import COLOURS, FONT, GREY, MARKERS, WIDTH, new_figure, save, style

Row = Mapping[str, Any]


def bench(results: Mapping[str, Any], folder: Path, name: str = "bench") -> list[Path]:
    """Draw all plots that the results of a bench allow; return the files."""
    return [file for draw in (latency, throughput, users) for file in draw(results, folder, name)]


def latency(results: Mapping[str, Any], folder: Path, name: str = "bench") -> list[Path]:
    """Draw the medians of TTFT and TPOT as bars with quartiles, one group per prompt length; return the files."""
    if not results["lengths"]:
        return []
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, key, title in (
        (left, "ttft_s", "time to first token (ms)"),
        (right, "tpot_s", "time per real token (ms)"),
    ):
        style(axes, "prompt length (tokens)", title)
        _bars(axes, results["lengths"], key)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(
        f"median of {results['trials']} trials, quartiles; batch {results['batch']}, "
        f"{results['new_tokens']} new tokens, {results['machine']['device']}",
        fontsize=FONT,
    )
    return [save(figure, folder / f"{name}_latency.png")]


def throughput(results: Mapping[str, Any], folder: Path, name: str = "bench") -> list[Path]:
    """Draw tokens per second, PAD not counted, over concurrent requests; return the files, none without a table."""
    if not results["throughput"]:
        return []
    figure, axes = new_figure("requests at once", "real tokens a second, all requests")
    labels = list(dict.fromkeys(arm["label"] for row in results["throughput"] for arm in row["arms"]))
    for index, label in enumerate(labels):
        points = [
            (row["requests"], arm["tokens_per_second"])
            for row in results["throughput"]
            for arm in row["arms"]
            if arm["label"] == label
        ]
        requests, rates = zip(*points, strict=True)
        medians = np.array([rate["median"] for rate in rates])
        spread = [medians - [rate["q1"] for rate in rates], [rate["q3"] for rate in rates] - medians]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.errorbar(requests, medians, spread, color=colour, marker=marker, capsize=3, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return [save(figure, folder / f"{name}_throughput.png")]


def users(results: Mapping[str, Any], folder: Path, name: str = "bench") -> list[Path]:
    """Draw speed-ups over the baseline by the tokens in all caches, measured and as the device's limits have them."""
    rows = results.get("users") or []
    labels = [arm["label"] for arm in rows[0]["arms"] if arm["arm"] != results["baseline"]] if rows else []
    if not labels or results["baseline"] is None:
        return []
    figure, axes = new_figure("users × context (tokens)", f"tokens a second over {results['baseline']}")
    for index, label in enumerate(labels):
        of = [(row["requests"] * row["context"], arm) for row in rows for arm in row["arms"] if arm["label"] == label]
        of.sort(key=lambda point: point[0])
        loads, arms = [load for load, _ in of], [arm for _, arm in of]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        medians, q1, q3 = (np.array([arm["speedup"][key] for arm in arms]) for key in ("median", "q1", "q3"))
        # Quartiles of few trials may lie on one side of the median by rounding only.
        spread = [np.maximum(medians - q1, 0), np.maximum(q3 - medians, 0)]
        axes.errorbar(loads, medians, spread, color=colour, marker=marker, linestyle="none", capsize=3, label=label)
        if all(arm["limit_speedup"] is not None for arm in arms):
            limits = [arm["limit_speedup"] for arm in arms]
            axes.plot(loads, limits, color=colour, linestyle="--", label=f"{label}, by the limits")
    axes.axhline(1.0, color=GREY, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", frameon=False, fontsize=FONT - 2, ncols=3)
    return [save(figure, folder / f"{name}_users.png")]


def _bars(axes: Axes, lengths: Sequence[Row], key: str) -> None:
    labels = [arm["label"] for arm in lengths[0]["arms"]]
    width = 0.8 / len(labels)
    for index, label in enumerate(labels):
        times = [length["arms"][index][key] for length in lengths]
        q1, medians, q3 = (1e3 * np.array([time[name] for time in times]) for name in ("q1", "median", "q3"))
        bars = axes.bar(
            np.arange(len(lengths)) + (index - (len(labels) - 1) / 2) * width,
            medians,
            0.92 * width,
            # quartiles of few trials may lie on one side of the median by rounding only
            yerr=[np.maximum(medians - q1, 0), np.maximum(q3 - medians, 0)],
            capsize=3,
            color=COLOURS[index % len(COLOURS)],
            ecolor=GREY,
            label=label,
        )
        axes.bar_label(bars, fmt="{:.3g}", padding=2, fontsize=FONT - 3)
    axes.set_xticks(range(len(lengths)), [f"{length['prompt_tokens']:,}" for length in lengths])
    axes.margins(y=0.12)
