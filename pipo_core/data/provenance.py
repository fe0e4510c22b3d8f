"""Where data came from, in words that mean something on another machine; the record that a rollout leaves of itself.

A path in the Hugging Face cache is named by repository and commit, a bundled model by its name, a run by its path from
the folder `outputs` on; of any other path the last two parts are given, since the rest means nothing elsewhere.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files import file_fingerprint, fingerprint, read_record, write_record
from pipo_core.recipes.base import dump
from pipo_core.recipes.catalog import CATALOG, Entry
from pipo_core.recipes.problems import GENERATED
from pipo_core.recipes.rollout import RolloutRecipe, Shard

ABOUT = "rollout.json"
"""Beside rollouts.jsonl: what was asked of which model, and which shard it is."""

_CACHE_KINDS = ("models--", "datasets--")
_OUTPUTS = "outputs"
_SHOWN_PARTS = 2
_NOT_OF_THE_SET = ("run", "kind", "engine", "shard")
"""Settings in which the shards of one set may differ."""


def now() -> str:
    """Return the time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def name_of(path: Path) -> str:
    """Return the name of a file or folder for people elsewhere: hub repository and commit, or the path's last parts."""
    parts = path.parts
    for index, part in enumerate(parts):
        if part.startswith(_CACHE_KINDS) and parts[index + 1 : index + 2] == ("snapshots",):
            repo = part.partition("--")[2].replace("--", "/")
            commit, inside = parts[index + 2], "/".join(parts[index + 3 :])
            return f"{repo}{f', {inside}' if inside else ''} at commit {commit[:12]}"
        if part == "bundled" and parts[index - 1 : index] == ("pipo_core",):
            return f"{'/'.join(parts[index + 1 :])} (bundled)"
    shown = parts[parts.index(_OUTPUTS) :] if _OUTPUTS in parts else parts[-_SHOWN_PARTS:]
    return "/".join(part for part in shown if part != path.anchor)


def catalog_entry(name: str) -> tuple[str, Entry] | None:
    """Return the catalog's entry for a name that `name_of` gave, with its short name; None if it has none."""
    repo = name.partition(" at commit ")[0]
    for short, entry in CATALOG.items():
        if entry.bundled and name == f"{short} (bundled)":
            return short, entry
        where = f"{entry.repo}, {entry.folder}" if entry.folder else entry.repo
        if entry.repo and repo.partition(", ")[0] == entry.repo and repo.startswith(where):
            return short, entry
    return None


def describe_rollout(recipe: RolloutRecipe, out: Path, problems: int) -> dict[str, Any]:
    """Write the record of a rollout that begins, or goes on, and return it.

    Args:
        recipe: with paths on this disk in place of names.
        out: the stage's folder.
        problems: how many are asked.
    """
    model, source = Path(recipe.model), recipe.problems.source
    settings = {key: value for key, value in dump(recipe).items() if key not in _NOT_OF_THE_SET}
    settings |= {"model": name_of(model), "problems": {**settings["problems"], "source": _source_name(source)}}
    print_of = None if source in GENERATED else file_fingerprint(Path(source))
    # Workers may have the problems in different places.
    same = {**settings, "problems": {**settings["problems"], "source": print_of}}
    about = {
        **settings,
        "source_print": print_of,
        "set": fingerprint(same),
        "shard": dump(recipe.shard),
        "asked": problems,
        "engine": recipe.engine.kind,
        "begun": now(),
        "finished": None,
    }
    with suppress(MissingInputError):  # a damaged record is made again
        earlier = read_about(out)
        if earlier is not None and earlier.get("set") == about["set"]:
            about["begun"] = earlier.get("begun") or about["begun"]
    write_record(out / ABOUT, about)
    return about


def finish_rollout(about: Mapping[str, Any], out: Path) -> None:
    """Write into a rollout's record that it is finished."""
    write_record(out / ABOUT, {**about, "finished": now()})


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return the record of the rollout in a folder; None if it has none, as those of older versions.

    Raises:
        MissingInputError: if it was changed since it was written.
    """
    path = folder / ABOUT
    if not path.is_file():
        return None
    about = read_record(path)
    try:
        Shard.model_validate(about["shard"])
    except (KeyError, ValueError) as error:
        raise MissingInputError(f"{path}: not the record of a rollout") from error
    return about


def _source_name(source: str) -> str:
    return source if source in GENERATED else name_of(Path(source))
