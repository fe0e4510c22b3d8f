"""The part that all job commands share: load the recipe, plan or run it, show the result."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipo_cli.reporter import open_reporter
from pipo_cli.session import emit_json, say, session

if TYPE_CHECKING:
    from pipo_core.pipeline.stage import StageResult
    from pipo_core.recipes.kinds import JobKind


def run_recipe(
    ctx: typer.Context,
    kind: str,
    name: str,
    overrides: Sequence[str] | None,
    out: Path,
    *,
    dry_run: bool,
    restart: bool = False,
) -> None:
    """Load a recipe, and plan or run its job.

    Args:
        ctx: typer's.
        kind: the kind that the recipe must have.
        name: the recipe as named on the command line.
        overrides: changes to the recipe.
        out: the folder of all runs.
        dry_run: whether only the plan is shown.
        restart: whether a training in the folder that differs from this one is set aside.

    Raises:
        UsageError: if the recipe is of another kind.
        RecipeError: if it is not valid.
        MissingInputError: if the recipe or an input is absent.
    """
    run_job(ctx, load_job(kind, name, overrides or ()), out, dry_run=dry_run, name=name, restart=restart)


def load_job(kind: str, name: str, overrides: Sequence[str]) -> "JobKind":
    """Return the recipe of a job.

    Raises:
        UsageError: if it is of another kind; the hint is the command for that kind.
        RecipeError: if it is not valid.
        MissingInputError: if there is no such recipe.
    """
    from pipo_core.errors import UsageError
    from pipo_core.recipes.load import load_recipe
    from pipo_core.recipes.locate import find_recipe
    from pipo_core.recipes.pipeline import PipelineRecipe

    recipe = load_recipe(find_recipe(name, kind), overrides, stages=())
    if isinstance(recipe, PipelineRecipe) or recipe.kind != kind:
        command = "run" if recipe.kind == "pipeline" else recipe.kind
        words = shlex.join(["pipo", command, name, *overrides])
        raise UsageError(f"{name} is a recipe of kind {recipe.kind}, not {kind}", hint=words)
    return recipe


def run_job(
    ctx: typer.Context,
    recipe: "JobKind",
    out: Path,
    *,
    dry_run: bool,
    name: str | None = None,
    restart: bool = False,
) -> None:
    """Plan or run one job and show the result on standard output.

    Args:
        ctx: typer's.
        recipe: the job's recipe.
        out: the folder of all runs.
        dry_run: whether only the plan is shown.
        name: the recipe as named on the command line, for hints.
        restart: whether a training in the folder that differs from this one is set aside.
    """
    if dry_run:
        from pipo_cli.plan import job_plan

        with open_reporter().waiting("planning"):
            plan = job_plan(recipe, out, name, restart=restart)
        if session(ctx).json:
            emit_json(plan)
        else:
            show_plan(plan)
        if plan.get("exit_code"):
            raise typer.Exit(plan["exit_code"])
        return
    from pipo_cli.hints import hint_for
    from pipo_core.errors import MissingInputError
    from pipo_core.pipeline.stage import run_stage

    try:
        result = run_stage(recipe, out, reporter=open_reporter(), restart=restart)
    except MissingInputError as error:
        error.hint = hint_for(error, name, recipe.kind)
        raise
    show_outcome(ctx, result)
    following = _next_command(recipe, result.folder)
    if following and not session(ctx).json:
        say(f"next: {following}")


def show_outcome(ctx: typer.Context, result: "StageResult") -> None:
    """Print what a stage made: its figures and its folder."""
    if session(ctx).json:
        emit_json({"folder": str(result.folder), "skipped": result.skipped, "summary": result.summary})
        return
    from pipo_cli.results import show_result

    show_result(result.kind, result.summary)
    say(f"{'unchanged' if result.skipped else 'written'}: {result.folder}")


def show_plan(plan: dict[str, Any]) -> None:
    """Print the plan of a job: the recipe as YAML, then what the job would do."""
    from pipo_cli.tables import show_pairs
    from pipo_core.recipes.write import to_yaml

    say(to_yaml(plan["recipe"]).rstrip())
    say()
    lines: dict[str, Any] = {"action": plan["action"]}
    if plan["reasons"]:
        lines["because"] = "; ".join(plan["reasons"])
    if plan.get("next"):
        lines["first"] = plan["next"]
    lines |= {key: item["path"] for key, item in plan["inputs"].items()}
    show_pairs({**lines, **plan["work"], "folder": plan["folder"]})
    say("dry run: nothing was run or written")


def _next_command(recipe: "JobKind", folder: Path) -> str | None:
    if recipe.kind in ("train", "distill") and (folder / "adapter").is_dir():
        return shlex.join(["pipo", "merge", str(folder)])
    if recipe.kind in ("train", "distill", "merge") and (folder / "model").is_dir():
        return shlex.join(["pipo", "eval", "--suite", "tiny", "--ckpt", str(folder / "model")])
    return None
