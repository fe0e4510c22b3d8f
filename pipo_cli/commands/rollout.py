"""`pipo rollout`."""

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "rollout",
        epilog="Example: pipo rollout recipes/tiny/rollout.yaml problems.count=100",
    )(rollout)


def rollout(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Let a model answer problems several times and mark the correct answers.

    The same command again goes on where it stopped, or does nothing if it is done.
    """
    run_recipe(ctx, "rollout", recipe, overrides, out, dry_run=dry_run)
