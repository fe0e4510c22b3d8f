"""`pipo compare`."""

from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.options import Debug, Json
from pipo_cli.session import emit_json, say, session


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("compare", epilog="Example: pipo compare outputs/bench-cpu/bench outputs/bench-plain/bench")(compare)


def compare(
    ctx: typer.Context,
    first: Annotated[
        Path, typer.Argument(metavar="A", help="Results of pipo eval, bench or calibrate: a stage's folder.")
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="Results of the same kind, compared with A.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the figures of B with those of A, row by row, and list the settings that differ.

    Times and peak memory are shown as A / B, throughput and what fits as B / A, so B is better above 1. Accuracies and
    shares of kept drafts are shown as B - A, in points.
    """
    from pipo_core.pipeline.compare import compare_results, comparison_lines, comparison_table, read_results

    found = compare_results(read_results(first), read_results(second))
    if session(ctx).json:
        emit_json(found)
        return
    from pipo_cli.tables import show_table

    show_table(comparison_table(found))
    for line in comparison_lines(found):
        say(line)
