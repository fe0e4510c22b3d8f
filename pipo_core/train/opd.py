"""`pipo distill` in the user's process: checks the inputs of an on-policy distillation and has it run."""

from pathlib import Path
from typing import Any

from pipo_core.recipes.opd import DistillRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.models import check_pair
from pipo_core.train.rows import check_rows
from pipo_core.train.supervisor import run_training

_ENOUGH_FINISHED = 0.9
"""Share of the answers, in [0, 1], that should end by themselves."""


def run_distill(recipe: DistillRecipe, out: Path, *, made_by: str, reporter: Reporter | None = None) -> dict[str, Any]:
    """Distil, or go on with an interrupted distillation, and return its summary.

    Leaves the same files in ``out`` as `sft.run_train`.

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        made_by: fingerprint of everything that the weights depend on; checkpoints are stamped with it.
        reporter: gets progress, losses and warnings.

    Raises:
        MissingInputError: for a row without a user turn, naming its line, before anything starts.
        CheckpointError: if student and teacher do not fit each other.
        UsageError: if answers may become longer than the teacher can read.
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        MachineError: if DeepSpeed is asked for and missing.
        PipoError: if the training failed, or its loss was NaN or infinite.
    """
    check_pair(recipe)
    data = recipe.data
    rows = check_rows(Path(data.train), data.limit, answered=False, unread=data.unread)
    reporter = reporter or SilentReporter()
    summary = run_training(recipe, out, made_by=made_by, rows=rows, reporter=reporter)
    finished = summary.get("rollouts_finished")
    if finished is not None and finished < _ENOUGH_FINISHED:
        reporter.warn(
            f"only {100 * finished:.0f} % of the last answers ended within rollout.slots={recipe.rollout.slots}: "
            "from those that were cut the student does not learn how to end"
        )
    return summary
