"""`pipo bench`."""

import typer

from pipo_cli.comparisons import Checkpoint, Method, OptionalRecipe, Taus, compare
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("bench", epilog="Example: pipo bench --ckpt outputs/demo/merge/model prompt_tokens=[128,512]")(bench)


def bench(
    ctx: typer.Context,
    recipe: OptionalRecipe = None,
    overrides: Overrides = None,
    ckpt: Checkpoint = None,
    method: Method = None,
    tau: Taus = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure time to the first token and per token; only real tokens count.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    words = [*([recipe] if recipe else []), *(overrides or ())]
    compare(ctx, "bench", "tiny/bench.yaml", words, out, ckpt=ckpt, method=method, taus=tau, dry_run=dry_run)
