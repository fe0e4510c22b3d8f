"""JSON files: written whole, read with errors that name the file."""

import json
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files.atomic import write_atomic


def write_json(path: Path, obj: object) -> None:
    """Write `obj` as indented JSON, atomically.

    Args:
        path: the file.
        obj: an object that JSON can hold.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        MachineError: if the disk is full.
    """
    write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of the JSON file at `path`.

    Raises:
        MissingInputError: if the file is absent or not readable as JSON.
    """
    raw = read_bytes(path)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MissingInputError(f"{path}: not readable as JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file at `path`.

    Raises:
        MissingInputError: if the file is absent, not readable as JSON, or holds something other than an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise MissingInputError(f"{path}: does not hold a JSON object")
    return content


def read_bytes(path: Path) -> bytes:
    """Return the content of the file at `path`.

    Raises:
        MissingInputError: if the file is absent or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
