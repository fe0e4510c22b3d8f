"""The arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.session import session
from pipo_core.errors import UsageError


def _note_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        session(ctx).debug = True
    return value


def _note_json(ctx: typer.Context, value: bool) -> bool:
    if value:
        session(ctx).json = True
    return value


def _check_out(value: Path) -> Path:
    for place in (value, *value.parents):
        if place.exists() and not place.is_dir():
            raise UsageError(f"--out: {place} is a file, not a folder", hint="choose another folder with --out")
    return value


RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one (pipo recipes ls)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe: a.b=value sets, '~a.b' removes."),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder that runs are written to.", callback=_check_out)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; run and write nothing.")]
Json = Annotated[
    bool, typer.Option("--json", help="Write only JSON to standard output.", callback=_note_json, is_eager=True)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show a traceback on errors.", callback=_note_debug, is_eager=True)
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="If the settings or data of the training have changed: keep the old training as STAGE.previous "
        "and start again.",
    ),
]
DEFAULT_OUT = Path("outputs")


def is_change(word: str) -> bool:
    """Return whether a word of the command line is a change to a recipe, not a recipe's name."""
    return "=" in word or word.startswith("~")
