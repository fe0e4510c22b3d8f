"""Reads recipe files, applies changes and validates; reports each problem as `file:line:col key: what is wrong`."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipo_core.errors import MissingInputError, RecipeError, UsageError
from pipo_core.recipes.base import MAX_NAME, Loc, RecipeModel
from pipo_core.recipes.changes import Change, apply_changes, origin_of, parse_override, set_changes
from pipo_core.recipes.check import MOST_PROBLEMS, RecipeProblem, reference_problems, show, validate
from pipo_core.recipes.kinds import FILE_KINDS, KINDS, SUITE_KINDS, JobKind, Recipe
from pipo_core.recipes.locate import shipped_recipes
from pipo_core.recipes.pipeline import PipelineRecipe, Stage
from pipo_core.recipes.suite import SuiteFile, SuiteGroup
from pipo_core.recipes.yaml_positions import MAX_CHARACTERS, Document, Position, YamlProblem, parse
from pipo_core.text import did_you_mean, one_line


def load_recipe(path: Path | str, overrides: Sequence[str] = (), *, stages: Collection[str] | None = None) -> Recipe:
    """Return the recipe in a file, with overrides applied.

    In a pipeline, every stage's recipe is checked, too, and `stages.*.recipe` become paths relative to the working
    directory. An override that begins with a stage's name changes that stage: `train.max_steps=5`.

    Args:
        path: the recipe file.
        overrides: `a.b=value` or `~a.b`, applied in order.
        stages: names that `stage:NAME` may refer to: () for a recipe that runs alone, None to leave them unchecked.

    Raises:
        RecipeError: if the recipe is not valid; it holds all problems.
        MissingInputError: if there is no such file.
    """
    return parse_recipe(_read(Path(path)), str(path), overrides, stages=stages)


def parse_recipe(
    text: str, name: str, overrides: Sequence[str] = (), *, stages: Collection[str] | None = None
) -> Recipe:
    """Return the recipe in a text, as `load_recipe` does for a file.

    Args:
        text: the recipe.
        name: the file's name, for messages and for the paths of stages.
        overrides: as in `load_recipe`.
        stages: as in `load_recipe`.

    Raises:
        RecipeError: if the recipe is not valid; it holds all problems.
    """
    source = _open(text, name, [parse_override(override) for override in overrides])
    recipe, problems = source.check(stages)
    if recipe is None or problems:
        raise RecipeError(problems, name=name, hint=source.hint())
    return cast(Recipe, recipe)


def load_suite_file(path: Path) -> SuiteFile | SuiteGroup:
    """Return the suite, or the group of suites, in a file.

    Raises:
        RecipeError: if the file is not valid; it holds all problems.
        MissingInputError: if there is no such file.
    """
    source = _open(_read(path), str(path), [], SUITE_KINDS)
    found, problems = source.check(())
    if not isinstance(found, SuiteFile | SuiteGroup) or problems:
        raise RecipeError(problems, name=str(path), hint=source.hint())
    return found


def load_file(path: Path, overrides: Sequence[str] = ()) -> RecipeModel:
    """Return the recipe in a file, as `load_recipe` does, or the suite or group of suites."""
    text = _read(path)
    try:
        suite = _names_suite(parse(text).value) and not overrides
    except YamlProblem:  # told below, with its place
        suite = False
    return load_suite_file(path) if suite else parse_recipe(text, str(path), overrides)


def _names_suite(value: Any) -> bool:
    kind = value.get("kind") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind in SUITE_KINDS


def stage_recipe(stage: Stage, *, stages: Collection[str] | None = None) -> JobKind:
    """Return the recipe of a stage of a loaded pipeline, with its `set` applied.

    Args:
        stage: the stage.
        stages: names of the earlier stages; None to leave references to stages unchecked.

    Raises:
        RecipeError: if the recipe is not valid; it holds all problems.
        MissingInputError: if there is no such file.
    """
    recipe, problems = _check_stage(stage, Path(stage.recipe), stages, "set")
    if recipe is None or problems:
        raise RecipeError(problems, name=f"stage {stage.name!r}")
    return recipe


@dataclass
class _Source:
    """A recipe's text with its changes applied, and the positions and origins of its values."""

    name: str
    document: Document
    value: Any
    origins: dict[Loc, str]
    problems: list[tuple[Position | None, str]]
    overridden: dict[str, dict[str, str]]
    """By stage, the keys of its `set` that come from overrides, each with its override."""
    kinds: Mapping[str, type[RecipeModel]]

    def check(self, stages: Collection[str] | None) -> tuple[RecipeModel | None, list[str]]:
        """Return the recipe (None if invalid) and all problems, in the file's order and those of overrides last."""
        recipe = self._recipe(stages)
        last = Position(10**9, 0)
        ordered = sorted(self.problems, key=lambda item: _order(item[0] or last))
        lines = list(dict.fromkeys(one_line(message) for _, message in ordered))
        if len(lines) > MOST_PROBLEMS:
            lines = [*lines[:MOST_PROBLEMS], f"{self.name}:1:1 more problems than can be shown"]
        return recipe, lines

    def hint(self) -> str:
        """Return a command that helps with the problems of this recipe."""
        kind = self.value.get("kind") if isinstance(self.value, dict) else None
        return f"pipo recipes schema {kind}" if isinstance(kind, str) and kind in FILE_KINDS else "pipo recipes ls"

    def add(self, problem: RecipeProblem) -> None:
        """Add a problem, with the position of its value or of the nearest parent that has one."""
        what = f"{show(problem.loc)}: {problem.message}" if problem.loc else problem.message
        origin = origin_of(self.origins, problem.loc)
        if origin is not None:
            self.problems.append((None, f"{origin}: {what}"))
            return
        position = self._position(problem)
        self.problems.append((position, f"{self.name}:{position.line}:{position.column} {what}"))

    def _position(self, problem: RecipeProblem) -> Position:
        keys, values = self.document.keys, self.document.values
        if not problem.at_key and problem.loc in values:
            return values[problem.loc]
        for length in range(len(problem.loc), 0, -1):
            place = keys.get(problem.loc[:length]) or values.get(problem.loc[:length])
            if place is not None:
                return place
        return values.get((), Position(1, 1))

    def _recipe(self, stages: Collection[str] | None) -> RecipeModel | None:
        if not isinstance(self.value, dict):
            what = "is empty" if self.value is None else f"holds a {_form(self.value)}"
            self.add(RecipeProblem((), f"the file {what}; a recipe is a mapping that starts with kind:"))
            return None
        model = self._model()
        if model is None:
            return None
        if "run" in model.model_fields:
            self.value.setdefault("run", _run_name(self.name))
        for problem in reference_problems(model, self.value, stages):
            self.add(problem)
        if model is PipelineRecipe:
            self._locate_stages()
        recipe, problems = validate(model, self.value)
        for problem in problems:
            self.add(problem)
        if model is PipelineRecipe:
            self._check_stages()
        return recipe

    def _model(self) -> type[RecipeModel] | None:
        kind = self.value.get("kind")
        kinds = ", ".join(self.kinds)
        if "kind" not in self.value:
            self.add(RecipeProblem(("kind",), f"missing: one of {kinds}", at_key=True))
        elif _names_suite(self.value) and kind not in self.kinds:
            self.add(RecipeProblem(("kind",), f"a {kind} file is not run by itself: pipo eval --suite {self.name}"))
        elif not isinstance(kind, str) or kind not in self.kinds:
            guess = did_you_mean(kind, self.kinds) if isinstance(kind, str) else ""
            self.add(RecipeProblem(("kind",), f"must be one of {kinds}; got {kind!r}{guess}"))
        else:
            return self.kinds[kind]
        return None

    def _entries(self) -> Iterator[tuple[int, dict[str, Any]]]:
        entries = self.value.get("stages")
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict):
                yield index, entry

    def _locate_stages(self) -> None:
        folder = Path(self.name).parent
        for _, entry in self._entries():
            if isinstance(entry.get("recipe"), str) and entry["recipe"]:
                beside = Path(os.path.normpath(folder / entry["recipe"]))
                # A copy of a shipped pipeline in another folder still finds the shipped stages.
                shipped = shipped_recipes().get(entry["recipe"]) if not _is_file(beside) else None
                entry["recipe"] = str(shipped or beside)

    def _check_stages(self) -> None:
        """Add the problems of each stage's recipe with its `set`, even if other parts of the pipeline are wrong."""
        earlier: list[str] = []
        for index, entry in self._entries():
            loc: Loc = ("stages", index)
            try:
                stage = Stage.model_validate({key: entry[key] for key in Stage.model_fields if key in entry})
            except ValueError:
                continue  # reported already
            path = Path(stage.recipe)
            if not _is_file(path):
                guess = did_you_mean(path.name, _recipes_in(path.parent))
                self.add(RecipeProblem((*loc, "recipe"), f"no such file: {path}{guess}"))
            else:
                where = self.document.values.get((*loc, "set"), Position(1, 1))
                origin = f"{self.name}:{where.line}:{where.column} set"
                overridden = self.overridden.get(stage.name)
                _, problems = _check_stage(stage, path, earlier, origin, overridden)
                place = self.document.values.get(loc)
                self.problems += [(place, problem) for problem in problems]
            earlier.append(stage.name)


def _check_stage(
    stage: Stage,
    path: Path,
    stages: Collection[str] | None,
    origin: str,
    overridden: Mapping[str, str] | None = None,
) -> tuple[JobKind | None, list[str]]:
    prefix = f"stage {stage.name!r}: "
    try:
        source = _open(_read(path), str(path), set_changes(stage.set, origin, overridden))
        if isinstance(source.value, dict) and source.value.get("kind") == "pipeline":
            return None, [f"{prefix}{path} is a pipeline; a stage is a single job"]
        recipe, problems = source.check(stages)
    except RecipeError as error:
        return None, [prefix + problem for problem in error.problems]
    if isinstance(recipe, PipelineRecipe):
        return None, [f"{prefix}{path} is a pipeline; a stage is a single job"]
    return cast(JobKind | None, recipe), [prefix + problem for problem in problems]


def _open(text: str, name: str, changes: list[Change | str], kinds: Mapping[str, type[RecipeModel]] = KINDS) -> _Source:
    """Return the parsed text of a file of one of these kinds, with changes applied.

    Raises:
        RecipeError: if the text is not YAML that a recipe can be.
    """
    try:
        document = parse(text)
    except YamlProblem as problem:
        place = problem.position
        raise RecipeError([one_line(f"{name}:{place.line}:{place.column} {problem}")], name=name) from problem
    problems: list[tuple[Position | None, str]] = [
        (place, f"{name}:{place.line}:{place.column} {show(loc)}: given twice") for loc, place in document.duplicates
    ]
    rest, sent = _into_stages(document.value, changes)
    changed = apply_changes(document, rest)
    problems += [(None, problem) for problem in changed.problems]
    return _Source(name, document, changed.value, changed.origins, problems, sent, kinds)


def _into_stages(value: Any, changes: list[Change | str]) -> tuple[list[Change | str], dict[str, dict[str, str]]]:
    """Move changes that begin with a stage's name into its `set`; return the other changes, and the moved ones."""
    entries = value.get("stages") if isinstance(value, dict) and value.get("kind") == "pipeline" else None
    stages = {
        entry["name"]: entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    rest: list[Change | str] = []
    sent: dict[str, dict[str, str]] = {}
    for change in changes:
        first, _, key = ("", "", "") if isinstance(change, str) else change.key.partition(".")
        if isinstance(change, str) or first not in stages or first in value or not key:
            unknown = not isinstance(change, str) and key and first not in PipelineRecipe.model_fields
            rest.append(_no_stage(change, first, stages) if unknown and stages and first not in stages else change)
            continue
        entry = stages[first]
        if entry.get("set") is None:
            entry["set"] = {}
        if isinstance(entry["set"], dict):
            # Removed first, so that it comes last: `set` is applied in order.
            name = f"~{key}" if change.remove else key
            entry["set"].pop(name, None)
            entry["set"][name] = change.value
            sent.setdefault(first, {})[name] = change.origin
    return rest, sent


def _no_stage(change: Change | str, first: str, stages: Collection[str]) -> str:
    origin = change if isinstance(change, str) else change.origin
    return f"{origin}: no stage {first!r}{did_you_mean(first, stages)}; stages: {', '.join(stages)}"


def _read(path: Path) -> str:
    try:
        # Reading a pipe or a device may block for ever, or never end.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise MissingInputError(f"{path}: not a regular file", hint="pipo recipes ls")
        with path.open("rb") as file:
            raw = file.read(4 * MAX_CHARACTERS + 1)
    except (FileNotFoundError, ValueError):  # ValueError: the name has a character that file names cannot have
        raise MissingInputError(f"{path}: no such file", hint="pipo recipes ls") from None
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > 4 * MAX_CHARACTERS:
        raise RecipeError([f"{path}:1:1 too long for a recipe"], name=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise RecipeError([f"{path}:{line}:{column} not UTF-8 text"], name=str(path)) from error


def _is_file(path: Path) -> bool:
    with suppress(OSError):  # for example a name that is too long
        return path.is_file()
    return False


def _recipes_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return [file.name for file in folder.glob("*.yaml")]
    return []


def _run_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem).lstrip("._-")[:MAX_NAME] or "run"


def _form(value: Any) -> str:
    return "list" if isinstance(value, list) else "single value"


def _order(position: Position) -> tuple[int, int]:
    return position.line, position.column


def known_model(kind: str) -> type[RecipeModel]:
    """Return the schema of a kind of recipe.

    Raises:
        UsageError: if there is no such kind; the message has the nearest one.
    """
    if kind not in FILE_KINDS:
        raise UsageError(f"no recipe kind {kind!r}{did_you_mean(kind, FILE_KINDS)}; kinds: {', '.join(FILE_KINDS)}")
    return FILE_KINDS[kind]
