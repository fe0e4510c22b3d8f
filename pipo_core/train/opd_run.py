"""`pipo distill`: prepares an on-policy distillation and has it run.

Imports no torch (see `parent`).
"""

from pathlib import Path
from typing import Any

from pipo_core.files import file_fingerprint, fingerprint
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.models import check_pair, model_prints
from pipo_core.train.parent import run_training
from pipo_core.train.rows import check_rows

_MOST = 0.9
"""Share of the answers that should end by themselves."""
_NO_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(
        ("run", "model", "teacher", "teacher_device", "offload", "log_every_steps", "save", "launch"), True
    ),
    "data": {"train"},
    "rollout": {"batch"},
}
"""What weights do not depend on, or by content."""


def run_distill(recipe: DistillRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Distil, or go on with an interrupted distillation, and return its summary.

    Leaves in ``out`` what `sft.run_train` does.

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        reporter: hears of progress, losses and trouble.

    Raises:
        MissingInputError: for a row without a user turn, by its line, before anything starts.
        CheckpointError: if student and teacher do not fit each other or their parts.
        UsageError: if answers may become longer than the teacher can read.
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        PipoError: if the training failed, or its loss was no number.
    """
    check_pair(recipe)
    rows = check_rows(Path(recipe.data.train), recipe.data.limit, answered=False)
    made_by = fingerprint(
        {
            # Without defaults, so that a key which a newer version of pipo adds is no change.
            "settings": recipe.model_dump(mode="json", exclude=_NO_SETTINGS, exclude_defaults=True),
            "processes": [recipe.launch.processes, recipe.launch.nodes, recipe.launch.deepspeed],
            "data": file_fingerprint(Path(recipe.data.train)),
            "models": [model_prints(Path(recipe.model)), model_prints(Path(recipe.teacher))],
        }
    )
    reporter = reporter or SilentReporter()
    summary = run_training(recipe, out, made_by=made_by, rows=rows, reporter=reporter)
    finished = summary.get("rollouts_finished")
    if finished is not None and finished < _MOST:
        reporter.warn(
            f"only {100 * finished:.0f} % of the last answers ended within rollout.slots={recipe.rollout.slots}: "
            "from those that were cut the student does not learn how to end"
        )
    return summary
