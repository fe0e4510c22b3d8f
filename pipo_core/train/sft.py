"""`pipo train`: prepares a supervised fine-tuning and has it run.

Imports no torch (see `parent`).
"""

from pathlib import Path
from typing import Any

from pipo_core.files import file_fingerprint, fingerprint
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.launch import plan
from pipo_core.train.models import check_model, model_prints
from pipo_core.train.parent import run_training
from pipo_core.train.rows import check_rows

__all__ = ["plan", "run_train"]

_NO_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("run", "model", "log_every_steps", "save", "launch"), True),
    "data": {"train", "validation", "cache"},
}
"""What weights do not depend on, or by content."""


def run_train(recipe: TrainRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train, or go on with an interrupted training, and return its summary.

    Leaves ``model/`` (full fine-tuning) or ``adapter/`` (LoRA), ``checkpoints/``, ``metrics.jsonl`` (one row a log
    step) and ``worker.log`` in ``out``.

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        reporter: hears of progress, losses and trouble.

    Raises:
        MissingInputError: for a missing model or a bad row of data, before anything starts.
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        MachineError: if DeepSpeed is asked for and missing.
        PipoError: if the training failed.
    """
    check_model(Path(recipe.model))
    data = recipe.data
    rows = check_rows(Path(data.train), data.limit)
    if data.validation is not None:
        check_rows(Path(data.validation))
    return run_training(recipe, out, made_by=_made_by(recipe), rows=rows, reporter=reporter or SilentReporter())


def _made_by(recipe: TrainRecipe) -> str:
    """Return a fingerprint of everything that the weights depend on: settings, data, starting model."""
    # Without defaults, so that a key which a newer version of pipo adds is no change. A default that changes is found
    # where whole recipes are compared.
    settings = recipe.model_dump(mode="json", exclude=_NO_SETTINGS, exclude_defaults=True)
    data = [recipe.data.train, recipe.data.validation]
    return fingerprint(
        {
            "settings": settings,
            "processes": [recipe.launch.processes, recipe.launch.nodes, recipe.launch.deepspeed],
            "data": [None if path is None else file_fingerprint(Path(path)) for path in data],
            "model": model_prints(Path(recipe.model)),
        }
    )
