"""JSON-lines files that rows are appended to; a kill at any byte loses at most the rows of the last call.

Each line ends with a check of its own, so that a damaged one is found and the others still count:
``{"step": 3, "loss": 0.5, "crc": "1a2b3c4d"}``. Lines without a check, of older versions or written by hand, are taken
as they are.
"""

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipo_core.errors import MissingInputError
from pipo_core.files.atomic import fsync
from pipo_core.files.disk_space import writing
from pipo_core.files.json_files import read_bytes

_BLOCK_BYTES = 1 << 16
_CHECK = re.compile(rb', "(...)": "([0-9a-f]{8})"\}\s*$')
"""The end of a line with a check, of which the key may be damaged."""


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
    lines = b"".join(encode_row(row) for row in rows)
    new = not path.exists()
    with writing(path):
        _append(path, lines)
        if new:
            fsync(path.parent)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, without blank lines and without an incomplete last line.

    Raises:
        MissingInputError: if the file is absent, or a line before the last is damaged.
    """
    rows, damaged = read_log(path)
    if damaged:
        raise MissingInputError(f"{path}:{damaged[0]}: not a JSON object, or not the one that was written")
    return rows


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows of a JSON-lines file, and the numbers (from 1) of damaged lines.

    An incomplete last line is what a killed writer leaves: it is neither a row nor damaged.

    Raises:
        MissingInputError: if the file is absent.
    """
    lines = read_bytes(path).split(b"\n")
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(decode_row(line))
        except ValueError:
            damaged += [number] if number < len(lines) else []
    return rows, damaged


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line with its check.

    A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    if not row:
        return text + b"\n"
    return b'%s, "crc": "%08x"}\n' % (text[:-1], zlib.crc32(text))


def decode_row(line: bytes) -> dict[str, Any]:
    """Return the row of a line, without its check.

    Raises:
        ValueError: if it is not a JSON object, or not the one that was written.
    """
    found = _CHECK.search(line)
    if found:
        line = line[: found.start()] + b"}"
        if found[1] != b"crc" or zlib.crc32(line) != int(found[2], 16):
            raise ValueError("the line is not the one that was written")
    row = _parse_object(line)
    if "crc" in row:
        raise ValueError("the line's check is damaged")
    return row


def read_data(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 1) and row of each line that is not blank, of a file that was made elsewhere.

    Unlike our own logs, such a file is whole or wrong: an incomplete last line is an error, too.

    Raises:
        MissingInputError: if the file is absent, or a line is not a JSON object.
    """
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if line.strip():
            try:
                row = parse_data(line)
            except ValueError as error:
                raise MissingInputError(f"{path}:{number}: {error}") from error
            if not isinstance(row, dict):
                raise MissingInputError(f"{path}:{number}: not a JSON object")
            yield number, row


def parse_data(line: bytes) -> Any:
    """Return the JSON value of a line of a file that was made elsewhere.

    Raises:
        ValueError: saying why it has none, or that an object has a key twice, of which one value would be lost.
    """
    try:
        return json.loads(line, object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise ValueError("lists or objects lie too deep in each other") from error
    except _DoubleKeyError:
        raise
    except ValueError as error:
        raise ValueError("not JSON, or a line that was cut off") from error


class _DoubleKeyError(ValueError):
    """An object has a key twice."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _DoubleKeyError(f"an object has the key {double[:40]!r} twice")
    return found


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("lists or objects lie too deep in each other") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        unfinished = _after_last_newline(file)
        if unfinished and not _is_row(unfinished):
            file.truncate(file.seek(0, os.SEEK_END) - len(unfinished))
        elif unfinished:  # a complete row without its newline, as written by hand
            lines = b"\n" + lines
        file.write(lines)
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


def _is_row(line: bytes) -> bool:
    try:
        decode_row(line)
    except ValueError:
        return False
    return True
