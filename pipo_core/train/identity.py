"""When is it the same training? One fingerprint of everything that its weights depend on.

Checkpoints and results carry it as ``made_by``. An interrupted training goes on only from checkpoints that carry the
fingerprint of the recipe at hand, so what goes into it must not change between versions of pipo.
"""

from pathlib import Path
from typing import Any

from pipo_core.files import file_fingerprint, fingerprint
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.train.models import model_prints

_LEFT_OUT: dict[str, dict[str, Any]] = {
    "train": {
        **dict.fromkeys(("run", "model", "log_every_steps", "save", "launch"), True),
        "data": {"train", "validation", "cache"},
    },
    "distill": {
        **dict.fromkeys(
            ("run", "model", "teacher", "teacher_device", "offload", "log_every_steps", "save", "launch"), True
        ),
        "data": {"train"},
        "rollout": {"batch"},
    },
}
"""By kind, the fields that change no weight, and those that count by the content of what they name."""


def training_fingerprint(recipe: AnyTraining) -> str:
    """Return the fingerprint of everything that a training's weights depend on: settings, processes, data, models.

    Defaults are left out, so that a key which a newer version of pipo adds changes nothing. A default whose value
    changes is found where whole recipes are compared (`pipo_core.pipeline.stage`).

    Args:
        recipe: its paths are real folders and files, which are read.
    """
    launch = recipe.launch
    return fingerprint(
        {
            "settings": recipe.model_dump(mode="json", exclude=_LEFT_OUT[recipe.kind], exclude_defaults=True),
            "processes": [launch.processes, launch.nodes, launch.deepspeed],
            **_inputs(recipe),
        }
    )


def _inputs(recipe: AnyTraining) -> dict[str, Any]:
    """Return the prints of data and models; their form differs by kind because checkpoints of today carry it."""
    if isinstance(recipe, DistillRecipe):
        return {
            "data": file_fingerprint(Path(recipe.data.train)),
            "models": [model_prints(Path(recipe.model)), model_prints(Path(recipe.teacher))],
        }
    files = [recipe.data.train, recipe.data.validation]
    return {
        "data": [None if file is None else file_fingerprint(Path(file)) for file in files],
        "model": model_prints(Path(recipe.model)),
    }
