"""`pipo eval`."""

from enum import StrEnum
from typing import Annotated

import typer

from pipo_cli.comparisons import Checkpoint, Method, OptionalRecipe, Taus, compare
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides


class Suite(StrEnum):
    """The benchmarks; each has a shipped recipe SUITE/eval.yaml with its standard settings."""

    tiny = "tiny"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "eval",
        epilog="Example: pipo eval --suite tiny --ckpt outputs/demo/merge/model --method pipo --tau 0.95",
    )(evaluate)


def evaluate(
    ctx: typer.Context,
    recipe: OptionalRecipe = None,
    overrides: Overrides = None,
    suite: Annotated[Suite, typer.Option("--suite", help="The benchmark.")] = Suite.tiny,
    ckpt: Checkpoint = None,
    method: Method = None,
    tau: Taus = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure accuracy: avg@k and pass@k with intervals, tokens a slot, differences to the baseline.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    words = [*([recipe] if recipe else []), *(overrides or ())]
    compare(ctx, "eval", f"{suite}/eval.yaml", words, out, ckpt=ckpt, method=method, taus=tau, dry_run=dry_run)
