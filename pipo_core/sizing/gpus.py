"""Does this machine have the GPUs that a training needs?"""

import torch

from pipo_core.errors import MachineError
from pipo_core.recipes.opd import AnyTraining
from pipo_core.train.launch import teacher_gpu


def missing_gpus(recipe: AnyTraining) -> MachineError | None:
    """Return the error that the training would end with for lack of GPUs; None if there are enough.

    bf16 takes one GPU for each process of this node, and one more if the teacher has its own.
    """
    if recipe.precision != "bf16":
        return None
    found, needed = torch.cuda.device_count(), max(recipe.launch.processes, (teacher_gpu(recipe) or 0) + 1)
    if found == 0:
        return MachineError("precision: bf16 needs a GPU, and there is none", hint="give precision=fp32")
    if found < needed:
        asked = f"launch.processes: {needed} need a GPU each"
        if needed != recipe.launch.processes:
            asked = f"teacher_device: cuda:{needed - 1} is GPU number {needed}"
        return MachineError(f"{asked}, and there are {found}")
    return None
