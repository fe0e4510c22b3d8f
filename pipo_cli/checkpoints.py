"""The checkpoints under the output folder: the newest one, and how a checkpoint decodes."""

import re
from contextlib import suppress
from pathlib import Path

from pipo_core.errors import MissingInputError
from pipo_core.files import read_object
from pipo_core.recipes.methods import PAIRS, PLAIN, MethodName


def newest_checkpoint(out: Path) -> Path:
    """Return the `model` folder of the stage under `out` that finished last.

    Raises MissingInputError when no finished stage has one.
    """
    found: list[tuple[float, Path]] = []
    for config in out.glob("*/*/model/config.json"):
        record = config.parent.parent / "stage.json"
        if ".previous" in record.parent.name or not record.is_file():
            continue
        with suppress(MissingInputError):  # a damaged record is no reason not to take another checkpoint
            if read_object(record).get("state") != "done":
                continue
            found.append((record.stat().st_mtime, config.parent))
    if not found:
        raise MissingInputError(f"no finished checkpoint under {out}", hint="name one with --ckpt, or pipo run demo")
    return max(found)[1]


def default_method(checkpoint: Path) -> MethodName:
    """Return the method that decodes a pair model for its folder, `regular` for any other checkpoint.

    Raises MissingInputError when the folder is no checkpoint.
    """
    return (PAIRS if "compressor_type" in read_object(checkpoint / "config.json") else PLAIN).name


def run_name(prefix: str, checkpoint: str) -> str:
    """Return a run's name made from the checkpoint's last two telling parts: `eval-demo-merge`."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..", "model", "outputs")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([prefix, *parts[-2:]]))
