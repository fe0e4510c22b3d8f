"""What a training would do, and what this machine lacks for it, as far as it is known without torch."""

import importlib.util
import math
from pathlib import Path
from typing import Any

from pipo_core.errors import MachineError
from pipo_core.machine import missing_package
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.train.launch import command
from pipo_core.train.layout import JOB
from pipo_core.train.models import check_pair
from pipo_core.train.rows import check_rows
from pipo_core.train.token_cache import cache_folder, count_examples, examples_folder

_KERNELS = {"flash-linear-attention": "fla", "causal-conv1d": "causal_conv1d"}
"""Packages that make linear attention fast on a GPU, and the modules that they install."""


def plan(recipe: AnyTraining, out: Path) -> dict[str, Any]:
    """Return what a training in the folder ``out`` would do: for ``--dry-run``.

    Args:
        recipe: its paths are as a job gets them; what they name need not be there yet.
        out: the stage's folder.

    Returns:
        ``command``; ``rows``, the examples or questions of the data, and optimizer ``steps``, None where the data is
        not there yet (examples that turn out too long make fewer of both); ``batch_rows``, the rows of one step;
        ``tokens``, the counts of the tokenized examples if an earlier training has filled their folder, and
        ``tokenized``, that folder; ``longest_row``, the most tokens of a row; ``kernels``, for each package that makes
        linear attention fast whether it is installed, None on a CPU, which uses none; ``missing``, the errors of what
        is not installed.

    Raises:
        MissingInputError: if the data, or the validation set, is there and has a bad row.
        PipoError: if a teacher does not fit the student.
    """
    file = _rows_file(recipe.data.train, "train.jsonl")
    distills = isinstance(recipe, DistillRecipe)
    if isinstance(recipe, DistillRecipe):
        models = [model for model in (recipe.model, recipe.teacher) if model is not None]
        if all(Path(model).is_dir() for model in models):
            check_pair(recipe)
    unread = recipe.data.unread
    rows = check_rows(file, recipe.data.limit, answered=not distills, unread=unread) if file.is_file() else None
    folder, tokens = None, None
    if not isinstance(recipe, DistillRecipe) and rows is not None:
        data = recipe.data
        validation = data.validation and _rows_file(data.validation, "validation.jsonl")
        if validation and validation.is_file():
            check_rows(validation, unread=unread)
        cache = cache_folder(data.cache, out)
        folder = examples_folder(cache, file, Path(recipe.model), max_length=data.max_length, limit=data.limit)
        tokens = count_examples(folder)
    return {
        "command": command(recipe, out.absolute() / JOB),
        "rows": rows,
        "batch_rows": batch_rows(recipe),
        "steps": recipe.max_steps if rows is None else count_steps(recipe, rows if tokens is None else tokens.examples),
        "tokens": tokens,
        "tokenized": folder,
        "longest_row": longest_row(recipe),
        "kernels": kernels() if recipe.precision == "bf16" else None,
        "missing": [lack for lack in (missing_swift(), missing_deepspeed(recipe)) if lack is not None],
    }


def _rows_file(given: str, name: str) -> Path:
    return Path(given) / name if Path(given).is_dir() else Path(given)


def batch_rows(recipe: AnyTraining) -> int:
    """Return the rows of one optimizer step."""
    launch, batch = recipe.launch, recipe.batch
    return batch.per_device * batch.accumulation * launch.processes * launch.nodes


def longest_row(recipe: AnyTraining) -> int:
    """Return the most tokens of a row; a distillation's row is the question and two tokens a slot."""
    if isinstance(recipe, DistillRecipe):
        return recipe.data.max_prompt + 2 * recipe.rollout.slots
    return recipe.data.max_length


def count_steps(recipe: AnyTraining, rows: int) -> int:
    """Return the optimizer steps of a training.

    Args:
        recipe: for its length and batch.
        rows: of the data, none of them too long.
    """
    if recipe.max_steps is not None:
        return recipe.max_steps
    launch, batch = recipe.launch, recipe.batch
    micro_batches = math.ceil((rows // (launch.processes * launch.nodes)) / batch.per_device)
    return math.ceil((recipe.epochs or 0) * max(1, math.ceil(micro_batches / batch.accumulation)))


def missing_swift() -> MachineError | None:
    """Return the error to raise if ms-swift, which trains, is not installed; None if it is."""
    return missing_package("swift", "training needs ms-swift", "train")


def missing_deepspeed(recipe: AnyTraining) -> MachineError | None:
    """Return the error to raise if the recipe asks for DeepSpeed and it is not installed; None otherwise."""
    if recipe.launch.deepspeed is None:
        return None
    return missing_package("deepspeed", "launch.deepspeed needs DeepSpeed", "deepspeed")


def kernels() -> dict[str, bool]:
    """Return the packages that make linear attention fast on a GPU, and whether they are installed.

    transformers uses those that it can import, and plain PyTorch for the rest. Without flash-linear-attention the delta
    rule takes more than ten times as long.
    """
    return {package: importlib.util.find_spec(module) is not None for package, module in _KERNELS.items()}
