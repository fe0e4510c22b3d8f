"""Resolves the inputs that a recipe names to paths on this disk.

A recipe names its inputs by catalog name or hub id (with or without `@REVISION`), by path, or, in a pipeline, as
`stage:NAME[/sub/path]`. A job gets paths only. Nothing is downloaded here: the error for an absent input has the
command that downloads it.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.hub.cache import find_cached
from pipo_core.hub.questions import find_questions
from pipo_core.pipeline.records import RECORD, stage_state
from pipo_core.recipes.base import Reference
from pipo_core.recipes.catalog import CATALOG, Kind, find_name
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.schema import input_keys
from pipo_core.recipes.suite import GeneratedSource, source_file
from pipo_core.recipes.suites import NamedSuite, find_suites, suite_path
from pipo_core.text import did_you_mean

STAGE_PREFIX = "stage:"
_DOWNLOAD = "pipo download "


class AbsentPathError(MissingInputError):
    """A recipe names a path that does not exist; `value` is the path as written in the recipe."""

    def __init__(self, message: str, value: str) -> None:
        super().__init__(message)
        self.value = value


@dataclass(frozen=True)
class Input:
    """One artifact that a recipe reads.

    Attributes:
        key: dotted key of the recipe that names it.
        value: the name as written in the recipe.
        path: its path on this disk.
    """

    key: str
    value: str
    path: Path


def find_inputs(kind: str, settings: Mapping[str, Any], stages: Mapping[str, Path] | None = None) -> list[Input]:
    """Return the inputs that a recipe names, resolved to paths.

    Args:
        kind: the recipe's kind.
        settings: the recipe in its JSON form.
        stages: folders of earlier stages by name, for `stage:NAME`.

    Raises:
        MissingInputError: if an input is absent, unfinished, or not of the form that its key needs.
    """
    return [Input(key, value, resolve(key, value, stages or {})) for key, value, resolve in _named(kind, settings)]


def stage_references(kind: str, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (key, stage name) of every input of a recipe that is a `stage:NAME`."""
    return [
        (key, value.removeprefix(STAGE_PREFIX).partition("/")[0])
        for key, value, _ in _named(kind, settings)
        if value.startswith(STAGE_PREFIX)
    ]


def missing_inputs(kind: str, settings: Mapping[str, Any]) -> list[MissingInputError]:
    """Return an error for each input that no earlier stage makes and that is absent or cannot be used."""
    missing = []
    for key, value, resolve in _named(kind, settings):
        if not value.startswith(STAGE_PREFIX):
            try:
                resolve(key, value, {})
            except MissingInputError as error:
                missing.append(error)
    return missing


def all_missing(errors: Sequence[MissingInputError]) -> MissingInputError:
    """Return one error that names everything that is missing, with one command for all downloads."""
    if len(errors) == 1:
        return errors[0]
    unique = list(dict.fromkeys(error.message for error in errors))
    hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
    downloads = [hint.removeprefix(_DOWNLOAD) for hint in hints if hint.startswith(_DOWNLOAD)]
    plain = [name for name in downloads if "--" not in name]
    others = [hint for hint in hints if hint.removeprefix(_DOWNLOAD) not in plain]
    hint = "; ".join([*([_DOWNLOAD + " ".join(plain)] if plain else []), *others])
    return MissingInputError(
        "\n".join([f"{len(unique)} inputs are missing:", *(f"  {message}" for message in unique)]), hint=hint or None
    )


def put_inputs(settings: Mapping[str, Any], values: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a copy of `settings` with these values at their dotted keys."""
    changed = copy.deepcopy(dict(settings))
    for key, value in values.items():
        *parents, last = key.split(".")
        node: Any = changed
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[int(last) if isinstance(node, list) else last] = value
    return changed


Resolver = Callable[[str, str, Mapping[str, Path]], Path]


def resolve_model(key: str, value: str, stages: Mapping[str, Path]) -> Path:
    """Return the checkpoint folder that an input names; a stage's folder stands for its `model/`.

    Raises:
        MissingInputError: if there is none, or its stage is not finished.
    """
    if value in CATALOG and CATALOG[value].bundled:
        return bundled_model(value)
    folder = _on_disk(key, value, stages)
    if folder is None:
        return _cached(key, value, "model")
    _require_finished(key, folder)
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    for adapter in (folder, folder / "adapter"):
        if (adapter / "adapter_config.json").is_file():
            raise MissingInputError(f"{key}: {folder} holds an adapter, not a model", hint=f"pipo merge {folder}")
    raise MissingInputError(f"{key}: {folder} holds no model (no config.json)")


def resolve_adapter(key: str, value: str, stages: Mapping[str, Path]) -> Path:
    """Return the folder of the adapter, or of the whole model, that an input names.

    Raises:
        MissingInputError: if there is none, or its stage is not finished.
    """
    if value in CATALOG and CATALOG[value].bundled:
        return bundled_model(value)
    folder = _on_disk(key, value, stages)
    if folder is None:
        return _cached(key, value, "model")
    _require_finished(key, folder)
    # The folder of a training also holds logs, which are no part of what is merged.
    for name, config in (("adapter", "adapter_config.json"), ("model", "config.json")):
        if (folder / name / config).is_file():
            return folder / name
    return folder


def resolve_rows(name: str, *, tables: bool = False) -> Resolver:
    """Return the resolver of JSON-lines files; a folder stands for the file `name` in it.

    Args:
        name: the file's.
        tables: whether a folder without that file stands for all files of rows in it.
    """

    def resolve(key: str, value: str, stages: Mapping[str, Path]) -> Path:
        path = _on_disk(key, value, stages)
        if path is None:
            path = _cached(key, value, "data")
        _require_finished(key, path)
        if path.is_dir() and (not tables or (path / name).exists()):
            path = path / name
        if not path.is_file() and not (tables and path.is_dir()):
            raise MissingInputError(f"{key}: {path} {'is no regular file' if path.exists() else 'does not exist'}")
        return path

    return resolve


def _resolver(mark: Reference) -> Resolver:
    if mark.holds == "rows":
        return resolve_rows(mark.file, tables=mark.tables)
    return resolve_adapter if mark.holds == "adapter" else resolve_model


def _named(kind: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Resolver]]:
    """Yield key, value and resolver of every input that a recipe names."""
    if settings.get("suite") is not None:
        yield from _suite_inputs(settings)
    for pattern, mark in input_keys(KINDS[kind]).items():
        for key, value in _matches(pattern.split("."), settings, ()):
            if value is not None and value not in mark.generated:
                yield key, str(value), _resolver(mark)


def _suite_inputs(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Resolver]]:
    """Yield the file of the suite that a job asks, and the file of each suite's questions."""
    name, copies = str(settings["suite"]), settings.get("benchmark") or {}
    yield "suite", name, lambda *_: suite_path(name).absolute()
    suites = find_suites(name)
    for one in suites:
        one.profile_name(settings.get("profile"))
    for copied in copies:
        if copied not in [one.name for one in suites]:
            guess = did_you_mean(copied, [one.name for one in suites])
            raise UsageError(f"benchmark.{copied}: {name} asks no suite of this name{guess}")
    for one in suites:
        if one.name in copies:
            yield f"benchmark.{one.name}", str(copies[one.name]), _resolve_copy(one)
        elif not isinstance(one.suite.source, GeneratedSource):
            yield f"benchmark.{one.name}", one.suite.source.text, _resolve_source(one)


def _resolve_copy(named: NamedSuite) -> Resolver:
    """Return the resolver of a copy of a suite's questions: a file, or a folder that holds the suite's own file."""

    def resolve(key: str, value: str, stages: Mapping[str, Path]) -> Path:
        path = _on_disk(key, value, stages)
        if path is None:
            raise AbsentPathError(f"{key}: {value} does not exist{_first_absent(value)}", value)
        if path.is_dir():
            path = path / Path(source_file(named.suite.source)).name
        if not path.is_file():
            raise MissingInputError(f"{key}: {path} {'is no regular file' if path.exists() else 'does not exist'}")
        return path

    return resolve


def _resolve_source(named: NamedSuite) -> Resolver:
    def resolve(key: str, value: str, _: Mapping[str, Path]) -> Path:
        found = find_questions(named)
        if found is not None and not found.is_file():
            raise MissingInputError(f"{key}: {found} does not exist", hint=f"source.path in {named.path}")
        if found is None:
            raise MissingInputError(
                f"{key}: the questions ({value}) are not in the Hugging Face cache",
                hint=f"pipo download --suite {named.given_name}",
            )
        return found

    return resolve


def _matches(parts: list[str], node: Any, done: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not parts and isinstance(node, list):  # a field that takes one input or several
        yield from ((".".join((*done, str(index))), item) for index, item in enumerate(node))
    elif not parts:
        yield ".".join(done), node
    elif parts[0] == "*":
        for index, item in enumerate(node or ()):
            yield from _matches(parts[1:], item, (*done, str(index)))
    elif isinstance(node, Mapping) and parts[0] in node:
        yield from _matches(parts[1:], node[parts[0]], (*done, parts[0]))


def _on_disk(key: str, value: str, stages: Mapping[str, Path]) -> Path | None:
    if value.startswith(STAGE_PREFIX):
        name, _, sub = value.removeprefix(STAGE_PREFIX).partition("/")
        if name not in stages:
            raise MissingInputError(f"{key}: there is no earlier stage {name!r}{did_you_mean(name, stages)}")
        path = stages[name] / sub
        if not path.exists():
            raise MissingInputError(f"{key}: stage {name!r} made no {sub!r}")
        return path.absolute()
    path = Path(value).expanduser()
    return path.absolute() if path.exists() else None


def _require_finished(key: str, path: Path) -> None:
    if (path / RECORD).is_file():
        state = stage_state(path)
        if state != "done":
            raise MissingInputError(
                f"{key}: the stage in {path} is not finished (state: {state})",
                hint="give its command again; it goes on where it stopped",
            )


def _looks_like_path(value: str) -> bool:
    if value.startswith(("outputs/", "./", "../", "/", "~")):
        return True
    first, slash, _ = value.partition("/")
    return bool(slash) and Path(first).is_dir()


def _first_absent(value: str) -> str:
    """Return ` (there is no folder …)` with the topmost parent folder that does not exist, or an empty text."""
    path = Path(value).expanduser()
    absent = [folder for folder in path.parents if not folder.exists()]
    return f" (there is no folder {absent[-1]})" if absent else ""


def _cached(key: str, value: str, kind: Kind) -> Path:
    named = find_name(value, kind)
    name = value.partition("@")[0]
    if name not in CATALOG and _looks_like_path(value):
        raise AbsentPathError(f"{key}: {value} does not exist{_first_absent(value)}", value)
    if named is None:
        guess = did_you_mean(name, CATALOG)
        raise MissingInputError(f"{key}: {value!r} is neither a path here nor a known name{guess}")
    path = find_cached(named)
    if path is None:
        raise MissingInputError(
            f"{key}: {value!r} is neither a path here nor in the Hugging Face cache",
            hint=named.download_command,
        )
    return path
