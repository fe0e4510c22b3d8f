"""Rows of files that others made: JSON lines, a JSON list, parquet or CSV, one file or a folder of them.

Each row comes with its place, which messages name: ``p.jsonl:3``, ``p.json: item 3`` or ``p.parquet: row 3``.
"""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipo_core.errors import MissingInputError
from pipo_core.files import parse_data, read_bytes, read_data
from pipo_core.machine import missing_package
from pipo_core.text import did_you_mean, one_line

ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
"""Names of the files that are taken from a folder."""

_TRAIN = "train"
"""Files of a training split begin with this word, as hub data sets name them (train-00000-of-00019.parquet)."""

_BATCH_ROWS = 64
"""Rows of a parquet file held at once: a row with all tests of a programming problem can have megabytes."""

_LONGEST_FIELD = 1 << 27
"""Characters of one CSV field; Python's own limit is too low for long texts."""

_LEVELS = 4
"""How deep columns are listed for a message."""


class TableRow(NamedTuple):
    """A row.

    Attributes:
        where: file and place, for messages.
        name: the file's stem and the row's number, from 1: a name of its own.
        values: by column.
    """

    where: str
    name: str
    values: dict[str, Any]


def read_table(path: Path, columns: Collection[str] | None = None) -> Iterator[TableRow]:
    """Yield the rows of a file, or of a folder's files one after another, by name.

    Args:
        path: a .json file (a list of objects, or JSON lines), a .parquet or .csv file, a folder, or else JSON lines.
        columns: dotted paths of the columns that are wanted; the others of a parquet file are not read. None for all.

    Raises:
        MissingInputError: if a file cannot be read, or has a row that is not an object; naming its place.
        MachineError: if a parquet file is to be read and pyarrow is not installed.
    """
    for file in table_files(path):
        if file.suffix == ".parquet":
            yield from _read_parquet(file, columns)
        elif file.suffix == ".json" and read_bytes(file).lstrip()[:1] == b"[":
            yield from _read_list(file)
        elif file.suffix == ".csv":
            yield from _read_csv(file)
        else:
            yield from (TableRow(f"{file}:{line}", f"{file.stem}-{line}", row) for line, row in read_data(file))


def table_files(path: Path) -> list[Path]:
    """Return a file itself, or the files of a folder that hold rows, by name.

    If some of them are of a training split, those alone.

    Raises:
        MissingInputError: if a folder has no such files, or files of several kinds.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and not file.name.startswith("."))
    files = [file for file in files if file.name.startswith(_TRAIN)] or files
    kinds = sorted({file.suffix for file in files})
    if not files:
        raise MissingInputError(f"{path} holds no file of rows ({', '.join(ENDINGS)})", hint="name the file itself")
    if len(kinds) > 1:
        raise MissingInputError(f"{path} holds files of several kinds ({', '.join(kinds)})", hint="name one of them")
    return files


def value_at(row: TableRow, column: str) -> Any:
    """Return what a column holds; a dotted path leads into objects and lists.

    Raises:
        MissingInputError: if there is no such column, naming the row and the nearest column.
    """
    if column in row.values:
        return row.values[column]
    here: Any = row.values
    for part in column.split("."):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, Sequence) and not isinstance(here, str) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        else:
            known = list(_columns(row.values))
            guess = did_you_mean(column, known) or f"; it has {', '.join(known[:12])}{' …' if len(known) > 12 else ''}"
            raise MissingInputError(f"{row.where}: there is no column {column!r}{guess}")
    return here


def _columns(value: Any, prefix: str = "", level: int = 1) -> Iterator[str]:
    """Yield the dotted paths of a row's columns; of lists, those of the first item."""
    inner = list(value.items()) if isinstance(value, Mapping) else [("0", value[0])] if value else []
    for key, item in inner:
        yield f"{prefix}{key}"
        if level < _LEVELS and isinstance(item, Mapping | list):
            yield from _columns(item, f"{prefix}{key}.", level + 1)


def _read_list(file: Path) -> Iterator[TableRow]:
    try:
        items = parse_data(read_bytes(file))
    except ValueError as error:
        raise MissingInputError(f"{file}: {error}") from error
    for number, item in enumerate(items, start=1):
        where = f"{file}: item {number}"
        if not isinstance(item, dict):
            raise MissingInputError(f"{where}: not a JSON object")
        yield TableRow(where, f"{file.stem}-{number}", item)


def _read_csv(file: Path) -> Iterator[TableRow]:
    """Yield the rows below the line of names; all values are texts."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            for number, row in enumerate(reader, start=1):
                where = f"{file}:{reader.line_num}"
                if None in row or None in row.values():
                    raise MissingInputError(f"{where}: not as many fields as the first line names")
                yield TableRow(where, f"{file.stem}-{number}", dict(row))
    except OSError as error:
        raise MissingInputError(f"{file}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise MissingInputError(f"{file}: not CSV text: {error}") from error
    finally:
        csv.field_size_limit(before)


def _read_parquet(file: Path, columns: Collection[str] | None) -> Iterator[TableRow]:
    lack = missing_package("pyarrow", f"{file}: reading parquet files needs pyarrow", "suites")
    if lack is not None:
        raise lack
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as opened:
            there = set(opened.schema_arrow.names)
            wanted = (
                None if columns is None else {name if name in there else name.partition(".")[0] for name in columns}
            )
            if wanted is not None and not wanted <= there:
                wanted = None  # all columns, for the message that names the nearest
            number = 0
            for batch in opened.iter_batches(_BATCH_ROWS, columns=None if wanted is None else sorted(wanted)):
                for row in batch.to_pylist():
                    number += 1
                    yield TableRow(f"{file}: row {number}", f"{file.stem}-{number}", row)
    except (OSError, pyarrow.ArrowException) as error:
        raise MissingInputError(f"{file}: not readable as parquet: {one_line(error)}") from error
