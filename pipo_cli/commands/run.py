"""`pipo run`."""

import shlex

import typer

from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName
from pipo_cli.reporter import open_reporter
from pipo_cli.session import emit_json, say, session


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
    from pipo_core.pipeline.run import plan_pipeline, run_pipeline
    from pipo_core.recipes.load import load_recipe
    from pipo_core.recipes.locate import find_recipe
    from pipo_core.recipes.pipeline import PipelineRecipe

    pipeline = load_recipe(find_recipe(recipe), overrides or ())
    if not isinstance(pipeline, PipelineRecipe):
        command = shlex.join(["pipo", pipeline.kind, recipe, *(overrides or ())])
        raise UsageError(f"{recipe} is a single job of kind {pipeline.kind}, not a pipeline", hint=command)
    if dry_run:
        plan = plan_pipeline(pipeline, out)
        rows = [
            {"stage": item.name, "kind": item.kind, "action": item.action, "because": "; ".join(item.reasons)}
            for item in plan
        ]
        if session(ctx).json:
            stages = [{**row, "recipe": stage.recipe} for row, stage in zip(rows, pipeline.stages, strict=True)]
            emit_json({"kind": "pipeline", "folder": str(out / pipeline.run), "stages": stages})
            return
        from pipo_cli.tables import show_table
        from pipo_core.tables import Table

        columns = ["stage", "kind", "action", "because"]
        show_table(Table("", columns, [[*row.values()] for row in rows], words=(0, 1, 2, 3)))
        say(f"folder: {out / pipeline.run}")
        say("dry run: nothing was run or written")
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
