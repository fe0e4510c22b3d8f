"""Checkpoints to resume from: marked when complete, and chosen by that mark.

A checkpoint counts only with its marker file. The marker is written last, after everything else has reached the disk,
and names every file with its size. The Trainer's own choice would take a checkpoint that a killed process left half
written.

Old checkpoints are removed by their step, and only when the newest has its marker. The Trainer would remove them before
that, and by the time of change, which copies and clocks alter.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import fsync_tree, read_json, read_object, write_json

MARKER = "complete.json"
STATE = "trainer_state.json"

_NAME = re.compile(r"^checkpoint-(\d+)$")


def mark_complete(checkpoint: Path, made_by: str) -> None:
    """Flush the checkpoint to the disk, then write its marker.

    Args:
        checkpoint: its folder.
        made_by: fingerprint of everything that the weights depend on.
    """
    files = {file.relative_to(checkpoint).as_posix(): file for file in checkpoint.rglob("*") if file.is_file()}
    files.pop(MARKER, None)
    fsync_tree(checkpoint)
    write_json(
        checkpoint / MARKER,
        {"made_by": made_by, "files": {name: file.stat().st_size for name, file in sorted(files.items())}},
    )


def newest_complete(folder: Path, made_by: str) -> Path | None:
    """Return the newest complete checkpoint in ``folder``, None if there is none.

    Args:
        folder: the training's checkpoints.
        made_by: fingerprint of the training that would go on from it.

    Raises:
        UsageError: if the checkpoint has another fingerprint.
    """
    for checkpoint in reversed(_by_step(folder)):
        marker = _marker(checkpoint)
        if marker is None:
            continue
        if marker.get("made_by") != made_by:
            raise UsageError(
                f"{checkpoint} was trained with other settings",
                hint=f"choose another folder, or remove {folder} to start anew",
            )
        return checkpoint
    return None


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all complete checkpoints but the ``keep`` newest."""
    complete = [checkpoint for checkpoint in _by_step(folder) if _marker(checkpoint) is not None]
    for checkpoint in complete[:-keep]:
        shutil.rmtree(checkpoint)


def remove_incomplete(folder: Path) -> None:
    """Remove the checkpoints that killed processes left half written, so that they do not count among those kept."""
    for checkpoint in _by_step(folder):
        if _marker(checkpoint) is None:
            shutil.rmtree(checkpoint)


def step_of(checkpoint: Path) -> tuple[int, int]:
    """Return the step of a checkpoint, and the last step of its training."""
    state = read_json(checkpoint / STATE)
    return int(state["global_step"]), int(state["max_steps"])


def logged(folder: Path, step: int) -> list[dict[str, Any]]:
    """Return the rows of figures that the checkpoint of ``step`` holds; an empty list if it is not there."""
    try:
        rows: list[dict[str, Any]] = read_object(folder / f"checkpoint-{step}" / STATE)["log_history"]
    except (MissingInputError, KeyError):
        return []
    return rows


def _by_step(folder: Path) -> list[Path]:
    """Return all checkpoints in a folder, by step."""
    if not folder.is_dir():
        return []
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(numbered)]


def _marker(checkpoint: Path) -> dict[str, object] | None:
    """Return the marker's content if every file that it names is there in its size; None otherwise."""
    try:
        marker = read_json(checkpoint / MARKER)
        sizes = {name: (checkpoint / name).stat().st_size for name in marker["files"]}
    except (MissingInputError, OSError, KeyError, TypeError):
        return None
    return marker if sizes == marker["files"] else None
