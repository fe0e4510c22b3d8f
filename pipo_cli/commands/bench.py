"""`pipo bench`."""

from typing import Annotated

import typer

from pipo_cli.comparisons import Asked, compare, comparison
from pipo_cli.jobs import load_job, run_job


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "bench",
        epilog="Examples: pipo bench --ckpt outputs/demo/merge/model prompt_tokens=[128,512]; "
        "pipo bench --random-weights qwen3.5-0.8b prompt_tokens=[2048]",
    )(bench)


@comparison
def bench(
    ctx: typer.Context,
    asked: Asked,
    random_weights: Annotated[
        str | None,
        typer.Option(
            "--random-weights",
            metavar="SHAPE",
            help="Instead of a checkpoint: all methods on random weights of a published shape, such as qwen3.5-4b.",
        ),
    ] = None,
) -> None:
    """Measure time to first token, time per output token, and throughput.

    PAD is not counted as a token. Without a recipe, --ckpt and --random-weights, the newest checkpoint is taken and
    named on the first line.
    """
    if random_weights is not None:
        changes = [f"random_weights={random_weights}", f"run=bench-{random_weights}", *asked.changes]
        name = asked.recipe or "bench/latency.yaml"
        run_job(ctx, load_job("bench", name, changes), asked.out, dry_run=asked.dry_run, name=name)
        return
    compare(ctx, "bench", "tiny/bench.yaml", asked)
