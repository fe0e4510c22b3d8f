"""Next commands that depend on which recipe was named on the command line."""

from pipo_core.errors import MissingInputError
from pipo_core.pipeline.inputs import AbsentPathError
from pipo_core.recipes.locate import shipped_name, shipped_recipes


def hint_for(error: MissingInputError, name: str | None, kind: str = "") -> str | None:
    """Return the hint for a missing input of a recipe, or None.

    The comments at the top of a shipped recipe list the commands that make its inputs.

    Args:
        error: the input is missing.
        name: the recipe as named on the command line.
        kind: the kind that the command takes.
    """
    if error.hint is not None or not isinstance(error, AbsentPathError) or name is None:
        return error.hint
    short = shipped_name(name, kind)
    if short is None or error.value not in shipped_recipes()[short].read_text(encoding="utf-8"):
        return None  # the path is the user's own
    return f"run the commands at the top of the recipe first: pipo recipes show {short}"
