"""What a job would do: the text of `--dry-run`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.pipeline.stage import stage_folder, standing
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Arm
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe


def job_plan(recipe: JobKind, root: Path) -> dict[str, Any]:
    """Return the plan of one job: what it would do and why, its inputs, its size, its folder, its recipe.

    An input that is missing is part of the plan, not an error.
    """
    plan: dict[str, Any] = {"kind": recipe.kind, "folder": str(stage_folder(recipe, root))}
    paths: dict[str, Path] = {}
    try:
        state = standing(recipe, root)
    except MissingInputError as error:
        plan |= {"action": "cannot start", "reasons": [error.message], "next": error.hint, "inputs": {}}
    else:
        paths = {item.key: item.path for item in state.inputs}
        plan |= {"action": state.action, "reasons": state.reasons}
        plan["inputs"] = {item.key: {"name": item.value, "path": str(item.path)} for item in state.inputs}
    plan["work"] = dict(_work(recipe, paths))
    plan["recipe"] = recipe.model_dump(mode="json")
    return plan


def _work(recipe: JobKind, paths: dict[str, Path]) -> Iterator[tuple[str, int | str]]:
    if isinstance(recipe, TrainRecipe):
        yield from _training(recipe, paths.get("data.train"))
    elif isinstance(recipe, RolloutRecipe) and recipe.problems.count is not None:
        yield "answers", recipe.problems.count * recipe.samples
    elif isinstance(recipe, EvalRecipe):
        yield "answers", _decodings(recipe.arms) * recipe.problems.count * recipe.samples
    elif isinstance(recipe, BenchRecipe):
        yield "trials", _decodings(recipe.arms) * len(recipe.prompt_tokens) * (recipe.trials + recipe.warmup)


def _training(recipe: TrainRecipe, data: Path | None) -> Iterator[tuple[str, int | str]]:
    batch, launch = recipe.batch, recipe.launch
    rows_a_step = batch.per_device * batch.accumulation * launch.processes * launch.nodes
    yield "rows a step", rows_a_step
    rows: int | None = None
    if data is not None:
        with data.open("rb") as file:
            rows = sum(1 for line in file if line.strip())
        rows = rows if recipe.data.limit is None else min(rows, recipe.data.limit)
        yield "rows", rows
    if recipe.max_steps is not None:
        yield "steps", recipe.max_steps
    elif rows is not None and recipe.epochs is not None:
        yield "steps", f"at most {math.ceil(math.ceil(rows / rows_a_step) * recipe.epochs):,}"


def _decodings(arms: list[Arm]) -> int:
    return sum(max(1, len(arm.taus())) for arm in arms)
