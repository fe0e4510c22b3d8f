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
        note: what to bear in mind, shown under the rows; may be empty.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)
    note: str = ""


def markdown(table: Table) -> str:
    """Return the table in Markdown: its title in bold and its note, if it has them, and a newline at the end."""
    rules = ["---" if number in table.words else "---:" for number in range(len(table.columns))]
    lines = [_line(table.columns), _line(rules), *(_line(row) for row in table.rows)]
    title = f"**{table.title}**\n\n" if table.title else ""
    note = f"\n{table.note}\n" if table.note else ""
    return title + "\n".join(lines) + "\n" + note


def without_empty_columns(table: Table) -> Table:
    """Return the table without the columns that are `ABSENT` in every row."""
    shown = [number for number in range(len(table.columns)) if any(row[number] != ABSENT for row in table.rows)]
    return Table(
        table.title,
        [table.columns[number] for number in shown],
        [[row[number] for number in shown] for row in table.rows],
        words=tuple(place for place, number in enumerate(shown) if number in table.words),
        note=table.note,
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
