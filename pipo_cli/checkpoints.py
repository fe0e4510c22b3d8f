"""Checkpoints under the output folder: the newest one, its default method, and run names made from it."""

import re
from contextlib import suppress
from pathlib import Path

from pipo_core.errors import MissingInputError
from pipo_core.files.checkpoints import is_pair_model
from pipo_core.pipeline.records import stage_state
from pipo_core.recipes.methods import PAIRS, PLAIN, MethodName


def newest_checkpoint(out: Path) -> Path:
    """Return the `model` folder of the stage under `out` that finished last: of a pair model if there is one.

    Raises:
        MissingInputError: if no finished stage has one.
    """
    found: list[tuple[bool, float, Path]] = []
    for config in out.glob("*/*/model/config.json"):
        record = config.parent.parent / "stage.json"
        if ".previous" in record.parent.name or not record.is_file():
            continue
        with suppress(MissingInputError):  # a stage with a damaged record is passed over
            if stage_state(record.parent) != "done":
                continue
            found.append((is_pair_model(config.parent), record.stat().st_mtime, config.parent))
    if not found:
        raise MissingInputError(
            f"no finished checkpoint under {out}", hint="give one with --ckpt, or make one: pipo run demo"
        )
    return max(found)[2]


def default_method(checkpoint: Path) -> MethodName:
    """Return the default method of a checkpoint: `pipo` for a pair model, `regular` for any other.

    Raises:
        MissingInputError: if the folder is not a checkpoint.
    """
    return (PAIRS if is_pair_model(checkpoint) else PLAIN).name


def run_name(prefix: str, checkpoint: str) -> str:
    """Return the name of a run on a checkpoint: the prefix and the last two distinctive folders, `eval-demo-merge`."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..", "model", "outputs")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([prefix, *parts[-2:]]))
