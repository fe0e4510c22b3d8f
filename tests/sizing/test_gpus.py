"""Are there the GPUs that a training needs?"""

from pathlib import Path

import pytest

from pipo_core.recipes.opd import AnyTraining
from pipo_core.sizing.gpus import missing_gpus
from tests.tiny import recipe
from tests.train.trainings import distill_recipe

FOLDER = Path("x")
SEVERAL = {"processes": 3}
APART = {"precision": "bf16", "teacher_device": "cuda:2"}


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        (recipe(FOLDER, FOLDER, launch=SEVERAL), 0, None),
        (recipe(FOLDER, FOLDER, precision="bf16"), 0, "precision: bf16 needs a GPU, and there is none"),
        (recipe(FOLDER, FOLDER, precision="bf16", launch=SEVERAL), 2, "launch.processes: 3 need a GPU each, and there"),
        (recipe(FOLDER, FOLDER, precision="bf16", launch=SEVERAL), 3, None),
        (
            distill_recipe(FOLDER, FOLDER, FOLDER, **APART),
            2,
            "cuda:2 is GPU number 3",
        ),
        (distill_recipe(FOLDER, FOLDER, FOLDER, **APART), 3, None),
    ],
)
def test_gpus_are_counted(wanted: AnyTraining, found: int, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: found)
    missing = missing_gpus(wanted)
    assert (missing is None) is (said is None)
    assert missing is None or said is None or said in missing.message
