"""A table of text, for a terminal or a Markdown page."""

from dataclasses import dataclass

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """Text in cells; every row has as many as there are columns."""

    title: str
    """What the figures are of and how they were taken; may be empty."""
    columns: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)
    """The columns that hold words and stand to the left; the others hold figures and stand to the right."""


def markdown(table: Table) -> str:
    """Return the table in Markdown: its title in bold, if it has one, and a newline at the end."""
    rules = ["---" if number in table.words else "---:" for number in range(len(table.columns))]
    lines = [_line(table.columns), _line(rules), *(_line(row) for row in table.rows)]
    title = f"**{table.title}**\n\n" if table.title else ""
    return title + "\n".join(lines) + "\n"


def without_empty_columns(table: Table) -> Table:
    """Return the table without the columns in which no row says anything (`ABSENT`)."""
    shown = [number for number in range(len(table.columns)) if any(row[number] != ABSENT for row in table.rows)]
    return Table(
        table.title,
        [table.columns[number] for number in shown],
        [[row[number] for number in shown] for row in table.rows],
        words=tuple(place for place, number in enumerate(shown) if number in table.words),
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
