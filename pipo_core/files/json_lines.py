"""JSON-lines files that rows are appended to; a kill at any byte loses at most the rows of the last call."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipo_core.errors import MissingInputError
from pipo_core.files.atomic import fsync
from pipo_core.files.disk_space import writing
from pipo_core.files.json_files import read_bytes

_BLOCK_BYTES = 1 << 16


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append `rows` to the JSON-lines file at `path`, one line each, and flush them to the disk.

    An incomplete last line of a killed writer is cut off first, so it never ends up in the middle.

    Args:
        path: the file; it and its folder are created.
        rows: JSON objects.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        MachineError: if the disk is full.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    new = not path.exists()
    with writing(path):
        _append_text(path, text)
        if new:
            fsync(path.parent)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, without blank lines and without an incomplete last line.

    Raises:
        MissingInputError: if the file is absent, or a line before the last is not a JSON object.
    """
    lines = read_bytes(path).split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parse_object(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise MissingInputError(f"{path}:{number}: not a JSON object")
    return rows


def read_data(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 1) and row of each line that is not blank, of a file that was made elsewhere.

    Unlike our own logs, such a file is whole or wrong: an incomplete last line is an error, too.

    Raises:
        MissingInputError: if the file is absent, or a line is not a JSON object.
    """
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            row = _parse_object(line)
            if row is None:
                raise MissingInputError(f"{path}:{number}: not a JSON object, or a line that was cut off")
            yield number, row


def _append_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        unfinished = _after_last_newline(file)
        if unfinished and _parse_object(unfinished) is None:
            file.truncate(file.seek(0, os.SEEK_END) - len(unfinished))
        elif unfinished:  # a complete row without its newline, as written by hand
            text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _after_last_newline(file: BinaryIO) -> bytes:
    """Return the bytes after the file's last newline, read backwards because these files grow long."""
    position = file.seek(0, os.SEEK_END)
    tail = b""
    while position and b"\n" not in tail:
        size = min(position, _BLOCK_BYTES)
        position = file.seek(position - size)
        tail = file.read(size) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
