"""Checkpoints to resume from: marked when complete, and chosen by that mark.

A checkpoint counts only with its marker file. The marker is written last, after everything else has reached the disk,
and names every file with its size and hash. The Trainer's own choice would take a checkpoint that a killed process left
half written, or one that is damaged. A checkpoint without a marker is removed. One that is not as its marker says is
set aside, and the newest whole one takes its place.

Old checkpoints are removed by their step, and only when the newest has its marker. The Trainer would remove them before
that, and by the time of change, which copies and clocks alter.
"""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import (
    DAMAGED,
    file_fingerprint,
    fsync_tree,
    read_json,
    read_object,
    read_record,
    usual_modes,
    write_record,
)

MARKER = "complete.json"
STATE = "trainer_state.json"

_NAME = re.compile(r"^checkpoint-(\d+)$")
_UNREAD = (MARKER, "README.md")
"""Files that nothing is restored from."""


def mark_complete(checkpoint: Path, made_by: str) -> None:
    """Flush the checkpoint to the disk, then write its marker.

    Args:
        checkpoint: its folder.
        made_by: fingerprint of everything that the weights depend on.
    """
    files = {file.relative_to(checkpoint).as_posix(): file for file in checkpoint.rglob("*") if file.is_file()}
    named = sorted(name for name in files if name not in _UNREAD)
    usual_modes(checkpoint)
    fsync_tree(checkpoint)
    write_record(
        checkpoint / MARKER,
        {
            "made_by": made_by,
            "files": {name: files[name].stat().st_size for name in named},
            "prints": _prints(checkpoint, named),
        },
    )


def newest_complete(folder: Path, made_by: str) -> Path | None:
    """Return the newest checkpoint in ``folder`` with a marker, None if there is none.

    Sizes are compared with the marker, contents are not; see `set_checkpoints_aside`.

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


def has_complete(folder: Path) -> bool:
    """Return whether there is a checkpoint with a marker that fits its sizes."""
    return any(_marker(checkpoint) is not None for checkpoint in _by_step(folder))


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all complete checkpoints but the ``keep`` newest."""
    complete = [checkpoint for checkpoint in _by_step(folder) if _marker(checkpoint) is not None]
    for checkpoint in complete[:-keep]:
        shutil.rmtree(checkpoint)


def remove_incomplete(folder: Path, warn: Callable[[str], None]) -> None:
    """Remove the checkpoints that killed processes left half written, so that they do not count among those kept.

    Args:
        folder: the training's checkpoints.
        warn: called with a sentence for each of them.
    """
    for checkpoint in _by_step(folder):
        if not (checkpoint / MARKER).exists():
            warn(f"{checkpoint} has no {MARKER}: it was left half written, and is removed")
            shutil.rmtree(checkpoint)


def set_checkpoints_aside(folder: Path, warn: Callable[[str], None]) -> None:
    """Rename the checkpoints that are not as their markers say, from the newest on until one is whole.

    Args:
        folder: the training's checkpoints.
        warn: called with a sentence for each of them.
    """
    for checkpoint in reversed(_by_step(folder)):
        wrong = _damage(checkpoint)
        if wrong is None:
            return
        aside = checkpoint.with_name(checkpoint.name + DAMAGED)
        if aside.exists():
            shutil.rmtree(aside)
        checkpoint.rename(aside)
        warn(f"{checkpoint / wrong} is damaged: the checkpoint becomes {aside.name}, and an older one is looked for")


def file_prints(folder: Path) -> dict[Path, str]:
    """Return the hashes of the files of all checkpoints in a folder, as their markers have them."""
    found: dict[Path, str] = {}
    for checkpoint in _by_step(folder):
        prints = (_marker(checkpoint) or {}).get("prints") or {}
        found.update({checkpoint / name: digest for name, digest in prints.items()})
    return found


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


def _marker(checkpoint: Path) -> dict[str, Any] | None:
    """Return the marker's content if every file that it names is there in its size; None otherwise."""
    try:
        marker = read_record(checkpoint / MARKER)
        sizes = {name: (checkpoint / name).stat().st_size for name in marker["files"]}
    except (MissingInputError, OSError, KeyError, TypeError):
        return None
    return marker if sizes == marker["files"] else None


def _damage(checkpoint: Path) -> str | None:
    """Return the first file that is not as the marker says; None for a whole checkpoint.

    Markers of older versions have no hashes, so there sizes are compared alone.
    """
    try:
        marker = read_record(checkpoint / MARKER)
        sizes, prints = marker["files"], marker.get("prints")
        for name, size in sizes.items():
            if not (checkpoint / name).is_file() or (checkpoint / name).stat().st_size != size:
                return str(name)
        if prints is None:
            return None
        now = _prints(checkpoint, list(prints))
        return next((name for name in prints if now[name] != prints[name]), None)
    except (MissingInputError, OSError, KeyError, TypeError, AttributeError):
        return MARKER


def _prints(checkpoint: Path, names: list[str]) -> dict[str, str]:
    """Return the hashes of files, which are read side by side: hashing frees Python's lock."""
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(file_fingerprint, (checkpoint / name for name in names))
        return dict(zip(names, found, strict=True))
