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
    first: Annotated[Path, typer.Argument(metavar="A", help="Results of pipo eval or pipo bench: a stage's folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Results of the same kind, compared with A.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Compare the figures of B with those of A, row by row, and list the settings that differ.

    Times are shown as A / B and throughput as B / A, so B is better above 1. Accuracies are shown as B - A, in points.
    """
    from pipo_core.pipeline.compare import compare_results, comparison_table, read_results

    found = compare_results(read_results(first), read_results(second))
    if session(ctx).json:
        emit_json(found)
        return
    from pipo_cli.tables import show_table

    show_table(comparison_table(found))
    for place, rows in (("A", found["only_first"]), ("B", found["only_second"])):
        if rows:
            say(f"only in {place}: {'; '.join(' · '.join(row) for row in rows)}")
    for name, (one, other) in found["settings"].items():
        say(f"differs: {name}: {one} and {other}")
