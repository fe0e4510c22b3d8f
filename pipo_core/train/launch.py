"""The command line and the environment of the training processes."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pipo_core.recipes.common import SGLangSettings
from pipo_core.recipes.opd import AnyTraining, DistillRecipe

_WORKER = "pipo_core.train.worker"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]  # so that the worker runs this very code, installed or not


def command(recipe: AnyTraining, job_file: Path) -> list[str]:
    """Return the command of this node: the worker itself, or torchrun if several processes train.

    Args:
        recipe: for processes, nodes and the teacher's device.
        job_file: what the worker reads.
    """
    launch = recipe.launch
    if not _needs_torchrun(recipe):
        return [sys.executable, "-m", _WORKER, str(job_file)]
    if launch.master is None:
        where = ["--standalone"]
    else:
        host, _, port = launch.master.rpartition(":")
        where = ["--master-addr", host, "--master-port", port, "--node-rank", str(launch.node_rank)]
    processes = ["--nnodes", str(launch.nodes), "--nproc-per-node", str(launch.processes)]
    return [sys.executable, "-m", "torch.distributed.run", *processes, *where, "-m", _WORKER, str(job_file)]


def environment(recipe: AnyTraining, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables to add for the training processes.

    Args:
        recipe: for processes, threads and the teacher's device.
        inherited: the variables that they get anyway; those of this process by default.
    """
    given = os.environ if inherited is None else inherited
    added = {
        "HF_HUB_OFFLINE": "1",  # every input is on this disk already
        "TOKENIZERS_PARALLELISM": "false",  # rows are tokenized on threads of our own
        "LOG_LEVEL": given.get("LOG_LEVEL", "ERROR"),  # ms-swift prints whole configurations otherwise
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), given.get("PYTHONPATH")])),
    }
    if recipe.launch.threads is not None:
        added["OMP_NUM_THREADS"] = str(recipe.launch.threads)
    if not _needs_torchrun(recipe):
        # If a single process saw several GPUs, ms-swift would spread the model over them.
        visible = given.get("CUDA_VISIBLE_DEVICES", "0")
        added["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    return added


def teacher_gpu(recipe: AnyTraining) -> int | None:
    """Return the number of the GPU that a distillation's teacher has for itself, None if it has none."""
    if isinstance(recipe, DistillRecipe) and recipe.teacher_device.startswith("cuda:"):
        return int(recipe.teacher_device.removeprefix("cuda:"))
    return None


def _needs_torchrun(recipe: AnyTraining) -> bool:
    """Return whether torchrun starts the worker.

    It does for a single process, too, if the teacher or the server of the rollouts has a GPU of its own. Under
    torchrun a process takes the GPU of its rank and leaves the others that it sees alone.
    """
    several = recipe.launch.processes * recipe.launch.nodes > 1
    return several or bool(teacher_gpu(recipe)) or _places_server(recipe)


def _places_server(recipe: AnyTraining) -> bool:
    """Return whether a distillation says on which GPU the server of its rollouts begins."""
    if not isinstance(recipe, DistillRecipe) or not isinstance(recipe.rollout.engine, SGLangSettings):
        return False
    return any(flag.partition("=")[0] == "--base-gpu-id" for flag in recipe.rollout.engine.flags)
