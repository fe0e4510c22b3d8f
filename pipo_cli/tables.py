"""Summaries and plans as text; rich draws the tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_cli.session import say


def show_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Print one row a mapping; the columns are the keys of all rows in order of appearance."""
    from rich.console import Console
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text_of(row.get(column)) for column in columns))
    Console(markup=False, highlight=False).print(table)


def show_pairs(pairs: Mapping[str, Any]) -> None:
    """Print `name  value` lines; lists of mappings become tables, mappings inside are dotted."""
    flat = dict(_flat(pairs, ""))
    width = max((len(name) for name, value in flat.items() if not _is_rows(value)), default=0)
    for name, value in flat.items():
        if _is_rows(value):
            say()
            show_table(value, title=name)
        else:
            say(f"{name.ljust(width)}  {text_of(value)}")


def text_of(value: Any) -> str:
    """Return a value as people write it: four digits, yes and no, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    return str(value)


def _flat(pairs: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in pairs.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, value))
    return flat


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
