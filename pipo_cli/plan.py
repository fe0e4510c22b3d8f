"""What a job would do: the text of `--dry-run`."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipo_cli.hints import hint_for
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.pipeline.inputs import put_inputs
from pipo_core.pipeline.stage import stage_folder, standing
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Arm
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe


def job_plan(recipe: JobKind, root: Path, name: str | None = None) -> dict[str, Any]:
    """Return the plan of one job: what it would do and why, its inputs, its size, its folder, its recipe.

    `name` is what the recipe was called on the command line. What is missing is part of the plan, not an error.
    """
    plan: dict[str, Any] = {"kind": recipe.kind, "folder": str(stage_folder(recipe, root))}
    paths: dict[str, Path] = {}
    try:
        state = standing(recipe, root)
    except MissingInputError as error:
        hint = hint_for(error, name)
        plan |= {"action": "cannot start", "reasons": [error.message], "next": hint, "inputs": {}}
    else:
        paths = {item.key: item.path for item in state.inputs}
        plan |= {"action": state.action, "reasons": state.reasons}
        plan["inputs"] = {item.key: {"name": item.value, "path": str(item.path)} for item in state.inputs}
    plan["work"] = dict(_work(recipe))
    if isinstance(recipe, TrainRecipe):
        _plan_training(plan, recipe, paths)
    plan["recipe"] = recipe.model_dump(mode="json")
    return plan


def _work(recipe: JobKind) -> Iterator[tuple[str, int | str]]:
    if isinstance(recipe, RolloutRecipe) and recipe.problems.count is not None:
        yield "answers", recipe.problems.count * recipe.samples
    elif isinstance(recipe, EvalRecipe):
        yield "answers", _decodings(recipe.arms) * recipe.problems.count * recipe.samples
    elif isinstance(recipe, BenchRecipe):
        yield "trials", _decodings(recipe.arms) * len(recipe.prompt_tokens) * (recipe.trials + recipe.warmup)


def _plan_training(plan: dict[str, Any], recipe: TrainRecipe, paths: Mapping[str, Path]) -> None:
    """Add a training's command and size to the plan, and what keeps it from starting."""
    # Imported here: other plans do without numpy.
    from pipo_core.train.launch import plan as plan_training

    inputs = {key: str(path) for key, path in paths.items()}
    resolved = TrainRecipe.model_validate(put_inputs(recipe.model_dump(mode="json"), inputs))
    try:
        training = plan_training(resolved, Path(plan["folder"]))
    except MissingInputError as error:
        _cannot_start(plan, error)
        return
    work = {"command": shlex.join(training["command"]), "rows a step": training["batch_rows"]}
    if training["rows"] is not None:
        work["rows"] = training["rows"]
    if recipe.max_steps is not None:
        work["steps"] = recipe.max_steps
    elif training["steps"] is not None:
        work["steps"] = f"at most {training['steps']:,}"  # rows that are too long drop out
    plan["work"] = work
    if plan["action"] != "skip":
        for lack in training["missing"]:
            _cannot_start(plan, lack)


def _cannot_start(plan: dict[str, Any], error: PipoError) -> None:
    if plan["action"] != "cannot start":
        plan |= {"action": "cannot start", "reasons": []}
    plan["reasons"] = [*plan["reasons"], error.message]
    plan["next"] = plan.get("next") or error.hint


def _decodings(arms: list[Arm]) -> int:
    return sum(max(1, len(arm.taus())) for arm in arms)
