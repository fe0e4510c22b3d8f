"""All problems of one recipe's values at once, each with its path."""

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipo_core.recipes.base import CrossFieldError, Loc, RecipeModel
from pipo_core.recipes.catalog import CATALOG, find_name
from pipo_core.recipes.schema import dotted_keys, field_at, fields_at, references
from pipo_core.text import did_you_mean

Model = TypeVar("Model", bound=RecipeModel)

MOST_PROBLEMS = 200
"""Most problems that are shown of one recipe: more have one cause, or the file is not a recipe."""

_PASSES = 8  # each pass repairs the problems of the one before, which can reveal others


@dataclass(frozen=True)
class RecipeProblem:
    """A problem at a path of the data; `at_key` if it is about the key, not its value."""

    loc: Loc
    message: str
    at_key: bool = False


def validate(model: type[Model], data: dict[str, Any]) -> tuple[Model | None, list[RecipeProblem]]:
    """Return the recipe, or None and every problem: of single fields and of rules across fields.

    pydantic skips the rules across fields while one of the fields is wrong. So wrong fields are replaced by their
    default or an example, and the rest is checked again; findings about replaced fields are dropped.

    Args:
        model: the schema.
        data: the raw values of the file, with changes applied.
    """
    problems: list[RecipeProblem] = []
    broken: list[Loc] = []
    seen: set[Loc] = set()
    trial = copy.deepcopy(data)
    for turn in range(_PASSES):
        try:
            recipe = model.model_validate(trial)
        except ValidationError as error:
            repairs: list[Loc] = []
            for detail in error.errors()[: MOST_PROBLEMS + 1]:
                loc = data_loc(trial, detail)
                found = detail.get("ctx", {}).get("error")
                if isinstance(found, CrossFieldError):
                    problems += _findings(found, loc, broken)
                    repairs += [loc if loc in seen else loc + finding.at for finding in found.findings]
                    seen.add(loc)
                else:
                    if turn == 0:
                        problems.append(_field_problem(model, detail, loc))
                    repairs.append(loc)
        else:
            return (recipe, []) if turn == 0 else (None, problems)
        if () in repairs or len(problems) > MOST_PROBLEMS:
            break
        for loc in repairs:
            broken.append(_repair(model, trial, loc))
    return None, problems


def reference_problems(
    model: type[RecipeModel], data: dict[str, Any], stages: Collection[str] | None
) -> Iterator[RecipeProblem]:
    """Yield a problem for each input that cannot be a path, a known name or an earlier stage.

    Args:
        model: the schema.
        data: the raw values of the file, with changes applied.
        stages: names of the earlier stages; None if they are unknown.
    """
    for loc, mark, text in references(model, data):
        message = _stage_message(text, stages) if text.startswith("stage:") else _name_message(text, mark.kind)
        if message is not None:
            yield RecipeProblem(loc, message)


def show(loc: Loc) -> str:
    """Return a path in the form of an override's key: `arms.0.tau`."""
    return ".".join(map(str, loc))


def _findings(error: CrossFieldError, loc: Loc, broken: list[Loc]) -> Iterator[RecipeProblem]:
    for finding in error.findings:
        paths = [loc + path for path in (finding.at, *finding.others)]
        if not any(path[: len(bad)] == bad for path in paths for bad in broken):
            yield RecipeProblem(loc + finding.at, finding.message)


def data_loc(data: Any, detail: ErrorDetails) -> Loc:
    """Return the path of an error in the data: pydantic's path without the names of union branches."""
    loc: Loc = ()
    here: Any = data
    last = len(detail["loc"]) - 1
    for index, part in enumerate(detail["loc"]):
        known = part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int)
        if known:
            here, loc = here[part], (*loc, part)
        elif index == last and detail["type"] == "missing":
            loc = (*loc, part)
    return loc


def _field_problem(model: type[RecipeModel], detail: ErrorDetails, loc: Loc) -> RecipeProblem:
    kind, context = detail["type"], detail.get("ctx", {})
    got = f"; got {_brief(detail['input'])}"
    match kind:
        case "extra_forbidden":
            return RecipeProblem(loc, "unknown key" + _key_suggestion(model, loc), at_key=True)
        case "missing":
            found = field_at(model, loc)
            about = found[1].description if found else None
            return RecipeProblem(loc, "missing" + (f": {about}" if about else ""), at_key=True)
        case "literal_error":
            field = field_at(model, loc)
            choices = _choices(str(context["expected"]))
            guess = did_you_mean(detail["input"], choices) if isinstance(detail["input"], str) and field else ""
            return RecipeProblem(loc, f"must be one of {', '.join(choices)}{got}{guess}")
        case "string_pattern_mismatch":
            return RecipeProblem(loc, f"must match {context['pattern']}{got}")
    if kind in _TYPES:
        return RecipeProblem(loc, f"must be {_TYPES[kind]}{got}{_type_hint(kind, detail['input'])}")
    text = detail["msg"].removeprefix("Input should be ")
    if text != detail["msg"]:
        return RecipeProblem(loc, f"must be {text}{got}")
    return RecipeProblem(loc, detail["msg"][:1].lower() + detail["msg"][1:])


_TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "null",
    "finite_number": "a finite number",
}


def _type_hint(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f" (write it in quotes: '{_brief(value)}')"
    return ""


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"the text {value!r}" if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _choices(expected: str) -> list[str]:
    """Return the words in pydantic's `'a', 'b' or 'c'`."""
    return [part.strip("'") for part in expected.replace(" or ", ", ").split(", ")]


def _key_suggestion(model: type[RecipeModel], loc: Loc) -> str:
    key = str(loc[-1])
    beside = fields_at(model, loc[:-1])
    if key in beside:
        return " for this kind"
    near = did_you_mean(key, beside)
    if near:
        return near
    elsewhere = [path for path in dotted_keys(model) if path.rpartition(".")[2] == key]
    return f" (did you mean {elsewhere[0]!r}?)" if elsewhere else ""


def _repair(model: type[RecipeModel], data: dict[str, Any], loc: Loc) -> Loc:
    """Replace the value at a path by the field's default or example; return the path that was replaced."""
    beside = fields_at(model, loc[:-1])
    found = field_at(model, loc)
    unknown_key = isinstance(loc[-1], str) and bool(beside) and loc[-1] not in beside
    target, field = (loc, None) if unknown_key or found is None else found
    parent: Any = data
    for part in target[:-1]:
        try:
            parent = parent[part]
        except (KeyError, IndexError, TypeError):
            return target  # an earlier repair removed the parent
    if isinstance(parent, dict):
        parent.pop(target[-1], None)
        if field is not None and field.is_required() and field.examples:
            parent[target[-1]] = copy.deepcopy(field.examples[0])
    return target


def _stage_message(text: str, stages: Collection[str] | None) -> str | None:
    name = text.removeprefix("stage:").partition("/")[0]
    if not name:
        return "stage: needs the name of a stage, as in stage:train"
    if stages is None or name in stages:
        return None
    if not stages:
        return f"{text!r} names a stage, but there is no stage before this one; give a folder"
    guess = did_you_mean(name, stages) or f"; earlier: {', '.join(stages)}"
    return f"no earlier stage is called {name!r}{guess}"


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # for example a name that is too long
        return False


_WORDS = {"model": "model", "data": "data set", "benchmark": "benchmark"}


def _name_message(text: str, kind: str) -> str | None:
    name, at, revision = text.partition("@")
    entry = CATALOG.get(name)
    if entry is not None:
        if at and entry.bundled:
            return f"{name!r} is bundled and has no revisions"
        if at and find_name(text, entry.kind) is None:
            return f"{revision!r} is not a revision of {name!r}: give a branch, a tag, or a commit's 40 digits"
        wrong = f"{text!r} is a {_WORDS[entry.kind]} in the catalog; a {_WORDS[kind]} is needed here"
        return None if entry.kind == kind else wrong
    if not text.strip():
        return "empty"
    if "/" in text or text.startswith("~") or _exists(text):
        return None
    guess = did_you_mean(name, [key for key, value in CATALOG.items() if value.kind == kind])
    if not guess and "." in text:
        return None  # perhaps a file that does not exist yet: the job reports it
    return f"{text!r} is neither a catalog name nor a file, folder or hub id{guess}"
