"""A stage's record on disk, `stage.json`: settings, inputs, state, and what it made, by content.

The record has a hidden copy beside it, `.stage.json`. If one of them is damaged or gone, the other one counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files import read_object, read_record, write_record

RECORD = "stage.json"
_COPY = ".stage.json"
_NEEDED = {"state", "message", "settings", "inputs", "files", "summary", "outputs"}


def stage_record(folder: Path) -> dict[str, Any]:
    """Return the record of a stage's folder; an empty one if there is none, or both it and its copy are damaged."""
    return _readable(folder / RECORD) or _readable(folder / _COPY)


def stage_state(folder: Path) -> Any:
    """Return the state that a stage's record has.

    Raises:
        MissingInputError: if neither the record nor its copy is readable.
    """
    return (stage_record(folder) or read_object(folder / RECORD)).get("state")


def record_is_damaged(folder: Path) -> bool:
    """Return whether the record is damaged or gone, and its copy is not."""
    return not _readable(folder / RECORD) and bool(_readable(folder / _COPY))


def is_twofold(folder: Path) -> bool:
    """Return whether both the record and its copy are readable."""
    return bool(_readable(folder / RECORD)) and bool(_readable(folder / _COPY))


def write_stage_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a stage's folder, and its copy.

    Raises:
        MachineError: if the disk is full.
    """
    write_record(folder / RECORD, record)
    write_record(folder / _COPY, record)


def _readable(path: Path) -> dict[str, Any]:
    try:
        record = read_record(path)
    except MissingInputError:
        return {}
    return record if record.keys() >= _NEEDED else {}
