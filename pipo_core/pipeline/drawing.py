"""What all plots share: PNG files, 1,280 pixels wide and readable at 800.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. matplotlib is used without a window system and
without its global state.
"""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipo_core.files import write_atomic

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#555555"
WIDTH, DPI = 8.0, 160
FONT = 12


def new_figure(x: str, y: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, whose labels are given."""
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    style(axes, x, y)
    return figure, axes


def style(axes: Axes, x: str, y: str) -> None:
    """Give axes their labels, sizes of text, and a grid."""
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file, whole or not at all, and return the file."""
    data = io.BytesIO()
    figure.savefig(data, dpi=DPI, format="png", metadata={"Software": None})
    write_atomic(path, data.getvalue())
    return path
