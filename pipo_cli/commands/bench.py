"""`pipo bench`."""

import typer

from pipo_cli.comparisons import Asked, compare, comparison


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("bench", epilog="Example: pipo bench --ckpt outputs/demo/merge/model prompt_tokens=[128,512]")(bench)


@comparison
def bench(ctx: typer.Context, asked: Asked) -> None:
    """Measure time to the first token and per token; only real tokens count.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    compare(ctx, "bench", "tiny/bench.yaml", asked)
