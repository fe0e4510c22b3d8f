"""Markdown as plain text: headings, tables and code that also read well unrendered."""

import re
from collections.abc import Sequence
from typing import Any


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are Markdown of one line each, or nothing when there are no rows."""
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def code(text: str) -> str:
    """Return `text`, which holds no backtick, as code."""
    return f"`{text}`"


def plain(text: str) -> str:
    """Return one line of text, with HTML characters escaped and pages of docs/ as links."""
    line = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", line)


def anchor(heading: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def value(item: Any) -> str:
    """Return a value as YAML on one line, as in a recipe."""
    if item is None or isinstance(item, bool):
        return {None: "null", True: "true", False: "false"}[item]
    if isinstance(item, float):
        return f"{item:.12g}"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key}: {value(inner)}" for key, inner in item.items()) + "}"
    if isinstance(item, list):
        return "[" + ", ".join(value(inner) for inner in item) + "]"
    return str(item)
