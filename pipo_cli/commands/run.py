"""`pipo run`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName
from pipo_cli.reporter import open_reporter
from pipo_cli.session import emit_json, say, session

if TYPE_CHECKING:
    from pipo_core.recipes.pipeline import PipelineRecipe


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "run",
        epilog="Examples: pipo run recipes/demo.yaml; "
        "pipo run demo pipo-sft.max_steps=50 (changes the recipe of the stage called pipo-sft).",
    )(run)


def run(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Run a pipeline: its stages in order, then a report with plots.

    Finished and unchanged stages are skipped; an interrupted stage goes on where it stopped.
    """
    from pipo_core.errors import UsageError
    from pipo_core.pipeline.run import run_pipeline
    from pipo_core.recipes.load import load_recipe
    from pipo_core.recipes.locate import find_recipe
    from pipo_core.recipes.pipeline import PipelineRecipe

    pipeline = load_recipe(find_recipe(recipe), overrides or ())
    if not isinstance(pipeline, PipelineRecipe):
        command = shlex.join(["pipo", pipeline.kind, recipe, *(overrides or ())])
        raise UsageError(f"{recipe} is a single job of kind {pipeline.kind}, not a pipeline", hint=command)
    if dry_run:
        _show_plan(ctx, pipeline, out)
        return
    result = run_pipeline(pipeline, out, reporter=open_reporter())
    if session(ctx).json:
        done = [
            {"folder": str(stage.folder), "skipped": stage.skipped, "summary": stage.summary} for stage in result.stages
        ]
        emit_json({"folder": str(result.folder), "report": str(result.report), "stages": done})
        return
    from pipo_cli.results import show_pipeline

    show_pipeline(result)


def _show_plan(ctx: typer.Context, pipeline: "PipelineRecipe", out: Path) -> None:
    """Print what a run would do with each stage, what its trainings take, and everything that is missing.

    Raises:
        Exit: with the code of the first thing that is missing.
    """
    from pipo_cli.plan import effort_of
    from pipo_cli.tables import show_pairs, show_table
    from pipo_core.pipeline.jobs import missing_plots
    from pipo_core.pipeline.run import missing_of, plan_pipeline
    from pipo_core.tables import Table

    with open_reporter().waiting("planning"):
        plan = plan_pipeline(pipeline, out)
        efforts = {item.name: effort_of(item.job) for item in plan}
    lacks = [lack for lack in (missing_of(pipeline), missing_plots()) if lack is not None]
    rows = [
        {"stage": item.name, "kind": item.kind, "action": item.action, "because": "; ".join(item.reasons)}
        for item in plan
    ]
    if session(ctx).json:
        stages = [
            {**row, "recipe": stage.recipe, "takes": efforts[stage.name]}
            for row, stage in zip(rows, pipeline.stages, strict=True)
        ]
        missing = [{"message": lack.message, "hint": lack.hint} for lack in lacks]
        emit_json({"kind": "pipeline", "folder": str(out / pipeline.run), "stages": stages, "missing": missing})
    else:
        shown = [
            [row["stage"], row["kind"], row["action"], "" if row["action"] == "cannot start" else row["because"]]
            for row in rows
        ]
        show_table(Table("", ["stage", "kind", "action", "because"], shown, words=(0, 1, 2, 3)))
        for name, effort in efforts.items():
            if effort:
                say()
                show_pairs({"stage": name, **effort})
        say()
        for lack in lacks:
            say(lack.message)
            if lack.hint:
                say(f"  try: {lack.hint}")
        say(f"folder: {out / pipeline.run}")
        say("dry run: nothing was run or written")
    if lacks:
        raise typer.Exit(lacks[0].exit_code)
