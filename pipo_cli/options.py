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
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where runs are written.", callback=_check_out)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; nothing is run or written.")]
Json = Annotated[
    bool, typer.Option("--json", help="Standard output holds only JSON.", callback=_note_json, is_eager=True)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show a traceback on errors.", callback=_note_debug, is_eager=True)
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Where an earlier training was made from other settings or data: "
        "keep it as STAGE.previous and start again.",
    ),
]
DEFAULT_OUT = Path("outputs")


def is_change(word: str) -> bool:
    """Whether a word after a command changes a recipe, rather than naming one."""
    return "=" in word or word.startswith("~")
