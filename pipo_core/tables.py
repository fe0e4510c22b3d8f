"""A table of text, for a terminal or a Markdown page."""

from dataclasses import dataclass

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: the subject of the figures and how they were measured; may be empty.
        columns: the headers.
        rows: the cells; every row has one for each column.
        words: the columns with words, which are aligned left; the others have figures and are aligned right.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)


def markdown(table: Table) -> str:
    """Return the table in Markdown: its title in bold, if it has one, and a newline at the end."""
    rules = ["---" if number in table.words else "---:" for number in range(len(table.columns))]
    lines = [_line(table.columns), _line(rules), *(_line(row) for row in table.rows)]
    title = f"**{table.title}**\n\n" if table.title else ""
    return title + "\n".join(lines) + "\n"


def without_empty_columns(table: Table) -> Table:
    """Return the table without the columns that are `ABSENT` in every row."""
    shown = [number for number in range(len(table.columns)) if any(row[number] != ABSENT for row in table.rows)]
    return Table(
        table.title,
        [table.columns[number] for number in shown],
        [[row[number] for number in shown] for row in table.rows],
        words=tuple(place for place, number in enumerate(shown) if number in table.words),
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
