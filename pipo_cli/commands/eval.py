"""`pipo eval`."""

from enum import StrEnum
from typing import Annotated

import typer

from pipo_cli.comparisons import Asked, compare, comparison
from pipo_core.errors import UsageError


class SuiteChoice(StrEnum):
    """The benchmarks; each has a shipped recipe SUITE/eval.yaml with its standard settings."""

    tiny = "tiny"
    math = "math"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "eval",
        epilog="Examples: pipo eval --suite tiny --ckpt outputs/demo/merge/model --method pipo --tau 0.95; "
        "pipo eval --suite math --ckpt outputs/sft-4b/merge/model",
    )(evaluate)


@comparison
def evaluate(
    ctx: typer.Context,
    asked: Asked,
    suite: Annotated[
        SuiteChoice | None,
        typer.Option("--suite", help="The problems: tiny (the default) is held-out arithmetic, math is AIME 2025."),
    ] = None,
) -> None:
    """Measure accuracy: avg@k and pass@k with intervals, tokens a slot, paired differences to the baseline.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    if suite is not None and asked.recipe is not None:
        raise UsageError(f"--suite {suite} and the recipe {asked.recipe}: give one of them", hint="pipo eval --help")
    compare(ctx, "eval", f"{suite or SuiteChoice.tiny}/eval.yaml", asked)
