"""The generated pages, each with a beginning that is written by hand."""

from collections.abc import Callable
from pathlib import Path

from pipo_cli.reference.commands import command_reference
from pipo_cli.reference.recipes import recipe_reference
from pipo_core.errors import MissingInputError

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARK = "<!-- What follows is made from the code by `make docs`; what stands above is written by hand. -->"

PAGES: dict[str, Callable[[], str]] = {"cli.md": command_reference, "recipes.md": recipe_reference}


def page(name: str) -> str:
    """Return the page: its hand-written beginning up to the mark, then the generated part.

    Raises:
        MissingInputError: if the page or its mark is absent, as in an installation without docs/.
    """
    path = DOCS / name
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", hint="run this in a checkout of pipo")
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise MissingInputError(f"{path} has lost its mark", hint=f"put this line below its introduction: {MARK}")
    return f"{head}{MARK}\n\n{PAGES[name]()}"
