"""Rows of files that were made elsewhere: JSON lines, JSON lists, parquet and CSV."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipo_core.errors import MissingInputError
from pipo_core.files import parse_data, read_data
from pipo_core.machine import missing_package
from pipo_core.text import did_you_mean

ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
_LONGEST_FIELD = 1 << 27
"""Characters of one CSV field; Python's own limit is too low for long contexts."""
_BATCH = 64
"""Rows of a parquet file that are decoded at once: a row can hold megabytes of tests."""


class Row(NamedTuple):
    """One row.

    Attributes:
        where: file and place, for messages.
        values: by column.
    """

    where: str
    values: Mapping[str, Any]

    def value(self, column: str) -> Any:
        """Return the value of a column; a dot goes into an object or a list: `reward_model.ground_truth`.

        Raises:
            MissingInputError: if there is no such column; the message has the nearest one.
        """
        if column in self.values:
            return self.values[column]
        found: Any = self.values
        for part in column.split("."):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                guess = did_you_mean(column, [str(name) for name in self.values])
                raise MissingInputError(
                    f"{self.where}: there is no column {column!r}{guess}",
                    hint=f"columns: {', '.join(map(str, self.values))}"[:300],
                )
        return found


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file; its ending says what it holds, and a file without one of `ENDINGS` holds JSON lines.

    Raises:
        MissingInputError: if the file is absent, cut off, or does not hold rows.
        MachineError: if it is parquet and pyarrow is not installed.
    """
    readers = {".json": _json_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}
    yield from readers.get(path.suffix.lower(), _jsonl_rows)(path)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for line, values in read_data(path):
        yield Row(f"{path}:{line}", values)


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        rows = parse_data(path.read_bytes())
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise MissingInputError(f"{path}: {error}") from error
    if not isinstance(rows, list):
        raise MissingInputError(f"{path}: not a list of objects")
    for number, values in enumerate(rows):
        if not isinstance(values, dict):
            raise MissingInputError(f"{path}[{number}]: not an object")
        yield Row(f"{path}[{number}]", values)


def _csv_rows(path: Path) -> Iterator[Row]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values or None in values.values():
                    raise MissingInputError(f"{where}: not as many fields as the first line names")
                yield Row(where, values)
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise MissingInputError(f"{path}: not CSV text: {error}") from error
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path) -> Iterator[Row]:
    lack = missing_package("pyarrow", "parquet files are read with pyarrow", "suites")
    if lack is not None:
        raise lack
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    yield Row(f"{path}, row {number}", values)
                    number += 1
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error}") from error
    except ArrowException as error:
        raise MissingInputError(f"{path}: not a parquet file: {error}") from error
