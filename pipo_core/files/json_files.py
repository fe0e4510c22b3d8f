"""JSON files: written whole, read with errors that name the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files.atomic import write_atomic
from pipo_core.files.fingerprints import fingerprint

_SEAL = "seal"


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


def write_record(path: Path, obj: Mapping[str, Any]) -> None:
    """Write an object with a seal, a hash of the rest, by which `read_record` finds damage.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
        MachineError: if the disk is full.
    """
    write_json(path, {**obj, _SEAL: _seal_of(obj)})


def read_record(path: Path) -> dict[str, Any]:
    """Return an object that `write_record` wrote, without its seal; older files have none and are taken as they are.

    Raises:
        MissingInputError: if the file is absent, not readable as a JSON object, or not as it was written.
    """
    found = read_object(path)
    seal = found.pop(_SEAL, None)
    if seal is not None and seal != _seal_of(found):
        raise MissingInputError(f"{path}: was changed since it was written")
    return found


def _seal_of(obj: Mapping[str, Any]) -> str:
    return fingerprint({key: value for key, value in obj.items() if key != _SEAL})


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
