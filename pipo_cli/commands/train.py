"""`pipo train`."""

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName, Restart


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train", epilog="Example: pipo train recipes/tiny/sft.yaml max_steps=50 --dry-run")(train)


def train(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    restart: Restart = False,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on answers: the pair model, or the uncompressed one as a baseline.

    The same command again goes on where it stopped, or does nothing if it is done. If settings or data have
    changed since, it says which and stops.
    """
    run_recipe(ctx, "train", recipe, overrides, out, dry_run=dry_run, restart=restart)
