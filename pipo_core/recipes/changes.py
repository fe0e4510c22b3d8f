"""Changes to a recipe before validation: `a.b=value` and `~a.b` of the command line, `set:` of a stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipo_core.recipes.base import Loc
from pipo_core.recipes.yaml_positions import MAX_DEPTH, Document, YamlProblem, parse


@dataclass(frozen=True)
class Change:
    """One change to a recipe.

    Attributes:
        key: dotted.
        value: the new value; None with `remove`.
        origin: where the change comes from, for messages.
        remove: whether the key is removed.
    """

    key: str
    value: Any
    origin: str
    remove: bool = False


@dataclass
class Changed:
    """A document's value after changes.

    Attributes:
        value: the changed value.
        origins: the origin of the change that set a path.
        problems: one line for each change that failed.
    """

    value: Any
    origins: dict[Loc, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def parse_override(text: str) -> Change | str:
    """Return the change that `key=value` or `~key` asks for, or a line that says what is wrong with it."""
    origin = f"override {text!r}"
    if text.startswith("~"):
        key, equals, _ = text[1:].partition("=")
        if equals:
            return f"{origin}: ~key removes a key and takes no value"
        return Change(key, None, origin, remove=True) if _is_key(key) else f"{origin}: {key!r} is not a key"
    key, equals, value = text.partition("=")
    if not equals:
        return f"{origin}: expected key=value, or ~key to remove a key"
    if not _is_key(key):
        return f"{origin}: {key!r} is not a key"
    try:
        document = parse(value)
    except YamlProblem as problem:
        return f"{origin}: {problem}"
    if document.duplicates:
        return f"{origin}: key {document.duplicates[0][0][-1]!r} given twice"
    commented = bool(value[document.end :].strip())
    if not isinstance(document.value, dict | list) and not value.lstrip().startswith(("'", '"')):
        # YAML drops comments and anchors, and folds lines; a text on the command line means what was typed.
        plain = isinstance(document.value, str) or commented
        return Change(key, value.strip() if plain else document.value, origin)
    if commented:
        return f"{origin}: {value[document.end :].strip()!r} behind the value would be a comment"
    return Change(key, document.value, origin)


def set_changes(
    entries: Mapping[str, Any], origin: str, overridden: Mapping[str, str] | None = None
) -> list[Change | str]:
    """Return the changes of a stage's `set`, each or a line that says what is wrong with it.

    Args:
        entries: `key: value`, or `~key: null` to remove a key.
        origin: where the entries are written.
        overridden: for keys that come from overrides, the override.
    """
    changes: list[Change | str] = []
    for key, value in entries.items():
        where = (overridden or {}).get(key) or f"{origin} {key!r}"
        remove = key.startswith("~")
        bare = key.removeprefix("~")
        if not _is_key(bare):
            changes.append(f"{where}: not a key")
        elif remove and value is not None:
            changes.append(f"{where}: ~key removes a key; its value must be null")
        else:
            changes.append(Change(bare, value, where, remove))
    return changes


def apply_changes(document: Document, changes: list[Change | str]) -> Changed:
    """Apply changes in order; the document's value is changed in place."""
    changed = Changed(document.value)
    for change in changes:
        if isinstance(change, str):
            changed.problems.append(change)
            continue
        message = _apply(changed, change)
        if message is not None:
            changed.problems.append(f"{change.origin}: {message}")
    return changed


def origin_of(origins: dict[Loc, str], loc: Loc) -> str | None:
    """Return the origin of the change that set a path or one of its parents, or None."""
    for length in range(len(loc), 0, -1):
        if loc[:length] in origins:
            return origins[loc[:length]]
    return None


def _apply(changed: Changed, change: Change) -> str | None:
    parts = change.key.split(".")
    if len(parts) > MAX_DEPTH:
        return f"more than {MAX_DEPTH} keys deep"
    here: Any = changed.value
    loc: Loc = ()
    for part in parts[:-1]:
        step = _step(here, part)
        if isinstance(here, dict) and (part not in here or here[part] is None):
            if change.remove:
                return "there is nothing to remove"
            here[part] = {}
            changed.origins[(*loc, part)] = change.origin
        if step is None:
            return _no_step(here, part, loc)
        loc = (*loc, step)
        here = here[step]
    step = _step(here, parts[-1])
    if step is None:
        return _no_step(here, parts[-1], loc)
    loc = (*loc, step)
    if change.remove:
        if isinstance(here, list) or step not in here:
            return "there is nothing to remove"
        del here[step]
        return None
    here[step] = change.value
    for old in [path for path in changed.origins if path[: len(loc)] == loc]:
        del changed.origins[old]
    changed.origins[loc] = change.origin
    return None


def _step(here: Any, part: str) -> str | int | None:
    if isinstance(here, dict):
        return part
    if isinstance(here, list) and part.isdecimal() and len(part) < 10 and int(part) < len(here):
        return int(part)
    return None


def _no_step(here: Any, part: str, loc: Loc) -> str:
    name = ".".join(map(str, loc)) or "the recipe"
    if isinstance(here, list):
        return f"{name} is a list of {len(here)}; {part!r} is not the number of an item (from 0)"
    return f"{name} is a single value and has no key {part!r}"


def _is_key(key: str) -> bool:
    return all(part and part.strip() == part for part in key.split("."))
