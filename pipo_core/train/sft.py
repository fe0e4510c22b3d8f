"""`pipo train` in the user's process: checks the inputs of a supervised fine-tuning and has it run."""

from pathlib import Path
from typing import Any

from pipo_core.files.checkpoints import check_model
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.models import check_gate
from pipo_core.train.rows import check_rows
from pipo_core.train.supervisor import run_training


def run_train(recipe: TrainRecipe, out: Path, *, made_by: str, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train, or go on with an interrupted training, and return its summary.

    Leaves ``model/`` (full fine-tuning) or ``adapter/`` (LoRA), ``checkpoints/``, ``metrics.jsonl`` (one row for each
    logged step) and ``worker.log`` in ``out``.

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        made_by: fingerprint of everything that the weights depend on; checkpoints are stamped with it.
        reporter: gets progress, losses and warnings.

    Raises:
        MissingInputError: for a missing model or a bad row of data, before anything starts.
        CheckpointError: if the model's folder is not a checkpoint, or brings code of its own.
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        MachineError: if DeepSpeed is asked for and missing.
        PipoError: if the training failed.
    """
    check_model(Path(recipe.model))
    check_gate(recipe)
    data = recipe.data
    examples = check_rows(Path(data.train), data.limit, unread=data.unread)
    if data.validation is not None:
        check_rows(Path(data.validation), unread=data.unread)
    return run_training(recipe, out, made_by=made_by, rows=examples, reporter=reporter or SilentReporter())
