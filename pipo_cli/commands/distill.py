"""`pipo distill`."""

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName, Restart


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("distill", epilog="Example: pipo distill recipes/tiny/opd.yaml max_steps=20 --dry-run")(distill)


def distill(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    restart: Restart = False,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Let a larger teacher correct what the pair model itself writes (on-policy distillation).

    The student is a fine-tuned pair model, merged; the teacher is an uncompressed model of the same tokenizer. The
    same command again goes on where it stopped, or does nothing if it is done.
    """
    run_recipe(ctx, "distill", recipe, overrides, out, dry_run=dry_run, restart=restart)
