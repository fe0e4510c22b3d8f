"""Which pages are generated, and how what is written by hand stays in them."""

from collections.abc import Callable
from pathlib import Path

from pipo_cli.reference.commands import command_reference
from pipo_cli.reference.recipes import recipe_reference
from pipo_core.errors import MissingInputError

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARK = "<!-- What follows is made from the code by `make docs`; what stands above is written by hand. -->"

PAGES: dict[str, Callable[[], str]] = {"cli.md": command_reference, "recipes.md": recipe_reference}


def page(name: str) -> str:
    """Return the page as it should be: its hand-written beginning up to the mark, then what the code says.

    Raises MissingInputError when the page or its mark is not there, as in an installation without docs/.
    """
    path = DOCS / name
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", hint="run this in a checkout of pipo")
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise MissingInputError(f"{path} has lost its mark", hint=f"put this line below its introduction: {MARK}")
    return f"{head}{MARK}\n\n{PAGES[name]()}"
