"""Rows of files with columns of any names, as rows with ours: id, question, answer, level, instruction, solution."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipo_core.data.tables import TableRow, read_table, value_at
from pipo_core.errors import MissingInputError
from pipo_core.recipes.problems import Columns, Problems

_SHOWN_VALUES = 5
_OPTIONAL = ("id", "level", "instruction", "solution")


def mapped_rows(path: Path, form: Problems, columns: Columns) -> Iterator[TableRow]:
    """Yield a file's rows with our keys in place of its columns; of all rows, those that ``form.where`` wants.

    Raises:
        MissingInputError: if the file cannot be read; for the first row without a column or with a question that lacks
            what is to be taken off; or if no row is wanted.
        MachineError: if the file is parquet and pyarrow is not installed.
    """
    found = wanted = 0
    others: dict[str, set[str]] = {column: set() for column in form.where}
    for row in read_table(path, [*_read_columns(columns), *form.where]):
        found += 1
        values = {column: value_at(row, column) for column in form.where}
        if values != form.where:
            for column, value in values.items():
                if value != form.where[column] and len(others[column]) < _SHOWN_VALUES:
                    others[column].add(repr(value)[:40])
            continue
        wanted += 1
        yield TableRow(row.where, row.name, _mapped(row, form, columns))
    if found and not wanted:
        seen = "; ".join(f"{column} has {', '.join(sorted(values))}" for column, values in others.items() if values)
        raise MissingInputError(f"{path}: none of its {found} rows has what problems.where wants ({seen})")


def _read_columns(columns: Columns) -> list[str]:
    answer = columns.answer
    answers = list(answer.values()) if isinstance(answer, dict) else [answer] if answer is not None else []
    others = [getattr(columns, name) for name in _OPTIONAL]
    return [columns.question, *answers, *(name for name in others if name is not None)]


def _mapped(row: TableRow, form: Problems, columns: Columns) -> dict[str, Any]:
    mapped: dict[str, Any] = {"question": _stripped(value_at(row, columns.question), form.strip, row.where)}
    for name in _OPTIONAL:
        column = getattr(columns, name)
        if column is not None:
            mapped[name] = _whole(value_at(row, column))
    if isinstance(columns.answer, dict):
        parts = {key: value_at(row, column) for key, column in columns.answer.items()}
        mapped["answer"] = {key: value for key, value in parts.items() if value is not None}
    elif columns.answer is not None:
        mapped["answer"] = value_at(row, columns.answer)
    return mapped


def _whole(value: Any) -> Any:
    """Return a whole number that a table holds as a float, because others of its column are absent, as one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stripped(question: Any, around: list[str] | None, where: str) -> Any:
    """Return a question without the texts around it; what is no text is left to the check of problems."""
    if around is None or not isinstance(question, str):
        return question
    before, after = around
    for text, there in ((before, question.startswith(before)), (after, question.endswith(after))):
        if not there:
            raise MissingInputError(
                f"{where}: the question does not {'begin' if text is before else 'end'} with {text[:60]!r}",
                hint="give problems.strip the texts that are around every question, or leave it out",
            )
    return question[len(before) : len(question) - len(after)]
