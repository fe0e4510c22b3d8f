"""The command line of the training processes, and what a recipe amounts to before it runs."""

import importlib.util
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipo_core.errors import CheckpointError, MachineError
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.layout import JOB
from pipo_core.train.models import check_pair
from pipo_core.train.rows import RowCounts, cache_folder, check_rows, count_rows, rows_folder

if TYPE_CHECKING:
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

    from pipo_core.train.memory import MemoryEstimate

_WORKER = "pipo_core.train.worker"
_KERNELS = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]  # so that the worker runs this very code, installed or not


def command(recipe: AnyTraining, job_file: Path) -> list[str]:
    """Return the command of this node: the worker itself, or torchrun with several of them."""
    launch = recipe.launch
    if launch.processes * launch.nodes == 1 and not _teacher_gpu(recipe):
        return [sys.executable, "-m", _WORKER, str(job_file)]
    if launch.master is None:
        where = ["--standalone"]
    else:
        host, _, port = launch.master.rpartition(":")
        where = ["--master-addr", host, "--master-port", port, "--node-rank", str(launch.node_rank)]
    processes = ["--nnodes", str(launch.nodes), "--nproc-per-node", str(launch.processes)]
    return [sys.executable, "-m", "torch.distributed.run", *processes, *where, "-m", _WORKER, str(job_file)]


def environment(recipe: AnyTraining, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that the libraries of the training processes read, beside those of this process."""
    given = os.environ if inherited is None else inherited
    added = {
        "HF_HUB_OFFLINE": "1",  # every input is on this disk already
        "TOKENIZERS_PARALLELISM": "false",  # rows are tokenized on threads of our own
        "LOG_LEVEL": given.get("LOG_LEVEL", "ERROR"),  # ms-swift prints whole configurations otherwise
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), given.get("PYTHONPATH")])),
    }
    if recipe.launch.threads is not None:
        added["OMP_NUM_THREADS"] = str(recipe.launch.threads)
    if recipe.launch.processes * recipe.launch.nodes == 1 and not _teacher_gpu(recipe):
        # With several GPUs in sight, one process would spread the model over them.
        visible = given.get("CUDA_VISIBLE_DEVICES", "0")
        added["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    return added


def _teacher_gpu(recipe: AnyTraining) -> int | None:
    """Return the number of the GPU that is the teacher's alone.

    Then even one process starts under torchrun: it takes the first GPU, and leaves the others that it sees.
    """
    if isinstance(recipe, DistillRecipe) and recipe.teacher_device.startswith("cuda:"):
        return int(recipe.teacher_device.removeprefix("cuda:"))
    return None


def batch_rows(recipe: AnyTraining) -> int:
    """Return the rows of one optimizer step."""
    launch, batch = recipe.launch, recipe.batch
    return batch.per_device * batch.accumulation * launch.processes * launch.nodes


def longest_row(recipe: AnyTraining) -> int:
    """Return the most tokens that a row may have; a distillation's rows are the question and two tokens a slot."""
    if isinstance(recipe, DistillRecipe):
        return recipe.data.max_prompt + 2 * recipe.rollout.slots
    return recipe.data.max_length


def count_steps(recipe: AnyTraining, rows: int) -> int:
    """Return the optimizer steps over ``rows`` rows, none of them too long."""
    if recipe.max_steps is not None:
        return recipe.max_steps
    launch, batch = recipe.launch, recipe.batch
    passes = math.ceil((rows // (launch.processes * launch.nodes)) / batch.per_device)
    return math.ceil((recipe.epochs or 0) * max(1, math.ceil(passes / batch.accumulation)))


def missing_swift() -> MachineError | None:
    """Return what to say if ms-swift, which trains, is not installed."""
    if importlib.util.find_spec("swift") is not None:
        return None
    return MachineError("training needs ms-swift", hint="pip install ms-swift")


def missing_deepspeed(recipe: AnyTraining) -> MachineError | None:
    """Return what to say if the recipe asks for DeepSpeed and it is not installed."""
    if recipe.launch.deepspeed is None or importlib.util.find_spec("deepspeed") is not None:
        return None
    return MachineError("launch.deepspeed needs DeepSpeed", hint='pip install "pipo[deepspeed]"')


def missing_gpus(recipe: AnyTraining) -> MachineError | None:
    """Return what to say if the recipe needs more GPUs than this machine has: bf16 takes one for each process."""
    if recipe.precision != "bf16":
        return None
    # Imported here: only a plan asks, and only it pays for the import.
    import torch

    found, needed = torch.cuda.device_count(), max(recipe.launch.processes, (_teacher_gpu(recipe) or 0) + 1)
    if found == 0:
        return MachineError("precision: bf16 needs a GPU, and there is none", hint="give precision=fp32")
    if found < needed:
        asked = f"launch.processes: {needed} need a GPU each"
        if needed != recipe.launch.processes:
            asked = f"teacher_device: cuda:{needed - 1} is GPU number {needed}"
        return MachineError(f"{asked}, and there are {found}")
    return None


def kernels() -> dict[str, bool]:
    """Return the packages that make linear attention fast on a GPU, and whether they are installed.

    transformers takes what it can import, and plain PyTorch for the rest: without flash-linear-attention the delta rule
    takes more than ten times as long.
    """
    return {package: importlib.util.find_spec(module) is not None for module, package in _KERNELS.items()}


def memory_estimate(recipe: AnyTraining) -> "MemoryEstimate | None":
    """Return what the training takes on each GPU; None where the shape of its model is not known here.

    A published size need not be downloaded for it.
    """
    # Imported here: only a plan asks, and only it pays for torch.
    from pipo_core.model.checkpoint import load_config
    from pipo_core.model.shapes import SHAPES, shape_config
    from pipo_core.train.memory import estimate_memory

    def config_of(model: str) -> "Qwen3_5TextConfig | None":
        folder = Path(model)
        if (folder / "config.json").is_file():
            with suppress(CheckpointError):
                return load_config(folder)
        return shape_config(model) if model in SHAPES else None

    config = config_of(recipe.model)
    teacher = config_of(recipe.teacher) if isinstance(recipe, DistillRecipe) else None
    if config is None or (teacher is None and isinstance(recipe, DistillRecipe)):
        return None
    return estimate_memory(recipe, config, fast_kernels=kernels()[_KERNELS["fla"]], teacher=teacher)


def tokenized_rows(recipe: TrainRecipe, file: Path, out: Path) -> tuple[Path, RowCounts | None]:
    """Return the folder of the training rows' tokens, and what it holds if an earlier training has filled it."""
    folder = rows_folder(
        cache_folder(recipe.data.cache, out),
        file,
        Path(recipe.model),
        max_length=recipe.data.max_length,
        limit=recipe.data.limit,
    )
    return folder, count_rows(folder)


def plan(recipe: AnyTraining, out: Path) -> dict[str, Any]:
    """Return what a training in the folder ``out`` would do, and what this machine lacks for it: for ``--dry-run``.

    Paths in the recipe are as a job gets them.
    ``rows`` and ``steps`` are None where the data is not there yet; rows that turn out too long make fewer of both.
    ``tokens`` counts the rows' tokens if an earlier training has tokenized them, into the folder ``tokenized``.
    ``longest_row`` is the most tokens that a row may have. ``memory`` is the estimate for one GPU, None if the model is
    not known. ``kernels`` says of each package for linear attention whether it is installed; None on a CPU, which uses
    none.

    Raises:
        MissingInputError: if the data is there and has a bad row.
        PipoError: if a teacher does not fit the student.
    """
    file = Path(recipe.data.train)
    file = file / "train.jsonl" if file.is_dir() else file
    distills = isinstance(recipe, DistillRecipe)
    if isinstance(recipe, DistillRecipe) and all(Path(model).is_dir() for model in (recipe.model, recipe.teacher)):
        check_pair(recipe)
    rows = check_rows(file, recipe.data.limit, answered=not distills) if file.is_file() else None
    lacks = [lack for lack in (missing_swift(), missing_deepspeed(recipe), missing_gpus(recipe)) if lack is not None]
    folder, tokens = None, None
    if not isinstance(recipe, DistillRecipe) and rows is not None and not missing_swift():
        folder, tokens = tokenized_rows(recipe, file, out)
    return {
        "command": command(recipe, out.absolute() / JOB),
        "rows": rows,
        "batch_rows": batch_rows(recipe),
        "steps": recipe.max_steps if rows is None else count_steps(recipe, rows if tokens is None else tokens.rows),
        "tokens": tokens,
        "tokenized": folder,
        "longest_row": longest_row(recipe),
        "memory": memory_estimate(recipe),
        "kernels": kernels() if recipe.precision == "bf16" else None,
        "missing": lacks,
    }
