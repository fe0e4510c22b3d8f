"""`pipo build`."""

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "build",
        epilog="Example: pipo build recipes/tiny/build.yaml rollouts=outputs/teacher/rollout",
    )(build)


def build(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Choose among rollouts and write training rows.

    The same command again goes on where it stopped, or does nothing if it is done.
    """
    run_recipe(ctx, "build", recipe, overrides, out, dry_run=dry_run)
