"""The identity of a stage: the settings and inputs that decide its result.

Inputs count by content. The path of an input, the name of the run, and settings that do not change the result
(`recipes.base.Neutral`) are not part of the identity. So a folder can be moved, and a batch made smaller before a stage
goes on.

The identity is computed once, when a stage begins, and recorded in its `stage.json`. The job gets its fingerprint and
stamps with it the files that it may resume from, such as a training's checkpoints.
"""

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipo_core.errors import MissingInputError
from pipo_core.files import fingerprint, read_object
from pipo_core.recipes.check import data_loc
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.schema import neutral_keys

_RETIRED: Mapping[str, Any] = {"engine.drafts": 3, "engine.draft_vocab": None, "keep": "correct"}
"""Keys that recipes had once, with the values that mean what is now the default; others took their place."""

_OLDER_RECORD = "job.json"
"""A training's file; older versions recorded the fingerprint on their checkpoints only there."""


@dataclass(frozen=True)
class Identity:
    """The settings and inputs that decide a stage's result.

    Attributes:
        kind: the recipe's kind.
        settings: flat, by dotted key, without inputs and neutral keys.
        prints: fingerprint of each input's content, by the key that names the input.
    """

    kind: str
    settings: dict[str, Any]
    prints: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Return one hash of kind, settings and inputs."""
        return fingerprint([self.kind, self.settings, self.prints])


def identity_of(recipe: JobKind, prints: Mapping[str, str]) -> Identity:
    """Return the identity of a recipe; `prints` has the fingerprint of each input by its key."""
    neutral = neutral_keys(type(recipe))
    # A list of inputs is one value of the settings, and each item of it an input.
    named = {*prints, *(key.rpartition(".")[0] for key in prints if key.rpartition(".")[2].isdecimal())}
    settings = {
        key: value
        for key, value in flat(recipe.model_dump(mode="json"))
        if key not in named and not any(fnmatchcase(key, pattern) for pattern in neutral)
    }
    return Identity(recipe.kind, settings, dict(prints))


def changes(recipe: JobKind, now: Identity, record: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each setting and input that differs from a recorded stage.

    If a newer version of pipo has added a key, the record counts as having its default.

    Args:
        recipe: the recipe that would run.
        now: its identity.
        record: the content of the stage's `stage.json`.
    """
    before = {key: entry["fingerprint"] for key, entry in record["inputs"].items()}
    old, removed = _recorded_identity(recipe, record["settings"], before)
    absent = object()
    found = [f"{key} was {value!r} and is no longer a key" for key, value in removed.items()]
    found += [
        f"{key} was {_shown(old.settings, key)} and is {_shown(now.settings, key)}"
        for key in sorted(old.settings.keys() | now.settings.keys())
        if old.settings.get(key, absent) != now.settings.get(key, absent)
    ]
    values = dict(flat(recipe.model_dump(mode="json")))
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    values |= {f"{key}.{index}": item for key, items in lists.items() for index, item in enumerate(items)}
    for key in sorted(old.prints.keys() | now.prints.keys()):
        named = record["inputs"].get(key, {}).get("value")
        if key not in now.prints:
            found.append(f"input {key} is no longer named")
        elif key not in old.prints:
            found.append(f"input {key} is new")
        elif old.prints[key] != now.prints[key] and named == values.get(key, named):
            found.append(f"the content of input {key} changed")
        elif old.prints[key] != now.prints[key]:
            found.append(f"input {key} was {named!r} and is {values.get(key)!r}")
    return found


def _recorded_identity(
    recipe: JobKind, settings: Mapping[str, Any], prints: Mapping[str, str]
) -> tuple[Identity, dict[str, Any]]:
    """Return the identity of recorded settings, and the values of keys that this version does not have."""
    known = deepcopy(dict(settings))
    removed: dict[str, Any] = {}
    while True:
        try:
            return identity_of(type(recipe).model_validate(known), prints), removed
        except ValidationError as error:
            extra = [data_loc(known, found) for found in error.errors() if found["type"] == "extra_forbidden"]
            if not extra:  # a value that is no longer valid: what it means is not known, so all is compared as it is
                return Identity(recipe.kind, dict(flat(known)), dict(prints)), removed
            for loc in extra:
                key, value = ".".join(str(part) for part in loc), _pop(known, loc)
                if key not in _RETIRED or _RETIRED[key] != value:
                    removed[key] = value


def _pop(settings: Any, loc: tuple[int | str, ...]) -> Any:
    for part in loc[:-1]:
        settings = settings[part]
    return settings.pop(loc[-1])


def recorded_fingerprint(record: Mapping[str, Any], folder: Path) -> str | None:
    """Return the fingerprint that an unfinished stage began with, or None if unknown.

    A stage that goes on keeps it, so that the job recognises the files that it stamped.

    Args:
        record: the content of the stage's `stage.json`.
        folder: the stage's folder; trainings of older versions recorded the fingerprint in a file there.
    """
    found = record.get("made_by")
    if found is None:
        with suppress(MissingInputError):
            found = read_object(folder / _OLDER_RECORD).get("made_by")
    return found if isinstance(found, str) else None


def flat(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as pairs of dotted key and value; a list of scalars is one value."""
    if isinstance(node, dict) and node:
        children = list(node.items())
    elif isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
        children = [(str(index), item) for index, item in enumerate(node)]
    else:
        return [(prefix, node)]
    return [pair for key, item in children for pair in flat(item, f"{prefix}.{key}" if prefix else str(key))]


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "absent"
