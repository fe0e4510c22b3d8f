"""Prints tables, findings and plans on standard output; rich draws the tables and the bold words."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipo_cli.session import say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pipo_core.tables import Table

WIDTH = 100
"""Characters per line if standard output is not a terminal."""
GAP = 2


def show_table(table: "Table") -> None:
    """Print a table between its title and its note, if it has them.

    If it is too wide, its headers are wrapped, then its widest column of words; only between words. A table that is
    still too wide extends beyond the line: figures are never cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    console = _console()
    if table.title:
        show_paragraph(table.title)
    widths = column_widths(table, console.width)
    console.width = max(console.width, sum(widths) + GAP * len(widths))
    # The box puts one character between columns.
    drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for number, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        drawn.add_column(column, justify="left" if number in table.words else "right", width=width)
    for row in table.rows:
        drawn.add_row(*row)
    _print(console, drawn)
    if table.note:
        show_paragraph(table.note)


def column_widths(table: "Table", max_width: int) -> list[int]:
    """Return the width of each column, so that the table takes at most `max_width` characters per line if possible."""
    from rich.cells import cell_len

    cells = [max((cell_len(row[number]) for row in table.rows), default=0) for number in range(len(table.columns))]
    gaps = GAP * (len(cells) - 1)
    most_lines = max(len(column.split()) for column in table.columns)
    widths = cells
    for lines in range(1, most_lines + 1):
        heads = [_width_in_lines(column, lines) for column in table.columns]
        widths = [max(pair) for pair in zip(cells, heads, strict=True)]
        if sum(widths) + gaps <= max_width:
            return widths
    widest = max(table.words, key=lambda number: widths[number])
    rest = max_width - gaps - sum(widths) + widths[widest]
    longest = max(len(word) for row in [table.columns, *table.rows] for word in row[widest].split() or [""])
    return [rest if number == widest and rest >= longest else width for number, width in enumerate(widths)]


def show_findings(lines: Sequence[str]) -> None:
    """Print Markdown sentences as a list, wrapped between words; `**…**` is bold on a terminal."""
    from rich.text import Text

    console = _console()
    for line in lines:
        text = Text()
        for number, part in enumerate(line.replace("`", "").split("**")):
            text.append(part, style="bold" if number % 2 else "")
        for number, part_of_line in enumerate(text.wrap(console, console.width - 2)):
            _print(console, Text("- " if number == 0 else "  ") + part_of_line)


def show_paragraph(text: str) -> None:
    """Print a text, wrapped between words."""
    for line in textwrap.wrap(text, _console().width, break_long_words=False, break_on_hyphens=False):
        say(line)


def show_pairs(pairs: Mapping[str, Any]) -> None:
    """Print `name  value` lines."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        say(f"{name.ljust(width)}  {text_of(value)}")


def text_of(value: Any) -> str:
    """Return a value as text: four digits of a number, yes or no, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{text_of(item)} {key}" for key, item in value.items()) or "-"
    return str(value)


def _width_in_lines(text: str, lines: int) -> int:
    """Return the smallest width at which `text`, wrapped between words, takes at most `lines` lines."""
    shortest = max((len(word) for word in text.split()), default=0)
    return next(width for width in range(shortest, len(text) + 1) if len(textwrap.wrap(text, max(1, width))) <= lines)


def _console() -> "Console":
    from rich.console import Console

    live = sys.stdout.isatty()
    width = None if live else WIDTH
    return Console(force_terminal=live, width=width, markup=False, highlight=False, emoji=False)


def _print(console: "Console", what: "RenderableType") -> None:
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().splitlines():
        say(line.rstrip())
