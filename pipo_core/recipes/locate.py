"""Paths of shipped recipes and bundled models, in the installed package or in the checkout."""

from pathlib import Path

from pipo_core.errors import MissingInputError
from pipo_core.recipes.catalog import CATALOG, entry
from pipo_core.text import did_you_mean

SUITES = "suites"
"""The folder of suites, among the recipes."""
_PACKAGE = Path(__file__).resolve().parent.parent


def recipe_folder() -> Path:
    """Return the folder of the shipped recipes."""
    bundled = _PACKAGE / "bundled" / "recipes"
    return bundled if bundled.is_dir() else _PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name (`demo.yaml`, `tiny/sft.yaml`), sorted by name."""
    return {name: path for name, path in shipped_files().items() if not name.startswith(f"{SUITES}/")}


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites and groups by name (`math`), sorted by name."""
    return {path.stem: path for path in sorted((recipe_folder() / SUITES).glob("*.yaml"))}


def shipped_files() -> dict[str, Path]:
    """Return the shipped recipes, suites and groups by name, sorted by name."""
    folder = recipe_folder()
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str, kind: str = "") -> Path:
    """Return the recipe file for a path, or for the name of a shipped recipe with or without `.yaml`.

    Args:
        name: a path or a name.
        kind: of the recipe that is wanted: `sft` is first looked for as `build_sft` if it is build.

    Raises:
        MissingInputError: if there is none; the message has the nearest shipped name.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise MissingInputError(f"{name} is a folder, not a recipe file", hint="pipo recipes ls")
    found = shipped_name(name, kind)
    if found is not None:
        return _short(shipped_files()[found])
    choices = [*shipped_files(), *(key.removesuffix(".yaml") for key in shipped_files())]
    short = _without_folder(name)
    raise MissingInputError(f"{name}: no such recipe{did_you_mean(short, choices)}", hint="pipo recipes ls")


def shipped_name(name: str, kind: str = "") -> str | None:
    """Return the shipped recipe that a name stands for, as `shipped_recipes` calls it; None if there is none.

    Args:
        name: as in `find_recipe`.
        kind: as in `find_recipe`.
    """
    shipped = shipped_recipes()
    short = _without_folder(name).removesuffix(".yaml")
    return next((file for file in (f"{kind}_{short}.yaml", f"{short}.yaml") if file in shipped), None)


def _without_folder(name: str) -> str:
    # The documentation writes `recipes/demo.yaml`; outside the checkout this means the shipped recipe.
    return name.removeprefix("./").removeprefix("recipes/")


def _short(path: Path) -> Path:
    """Return the path relative to the working directory if it lies in there, because every message shows it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def bundled_model(name: str) -> Path:
    """Return the folder of a bundled model.

    Raises:
        MissingInputError: if `name` is not one, or its files are missing.
    """
    if not entry(name).bundled:
        bundled = ", ".join(key for key, value in CATALOG.items() if value.bundled)
        raise MissingInputError(f"{name} is not bundled (bundled: {bundled})", hint=f"pipo download {name}")
    folder = _PACKAGE / "bundled" / name
    if not (folder / "config.json").is_file():
        raise MissingInputError(f"the bundled model {name} is missing from this installation: {folder}")
    return folder
