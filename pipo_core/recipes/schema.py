"""Looks into the schemas: the fields at a path, the keys of a recipe, and the fields with a mark."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from pipo_core.recipes.base import JobRecipe, Loc, Neutral, RecipeModel, Reference

Mark = TypeVar("Mark")


def inner_model(annotation: Any) -> type[RecipeModel] | None:
    """Return the recipe model inside an annotation such as `list[Arm] | None`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, RecipeModel):
        return annotation
    found = (inner_model(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


def is_list(annotation: Any) -> bool:
    """Return whether an annotation such as `list[Arm] | None` has a list in it."""
    return get_origin(annotation) is list or any(is_list(part) for part in get_args(annotation))


def choices(annotation: Any) -> list[str]:
    """Return the words of the `Literal` in an annotation, or nothing."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in choices(part)]


def model_at(root: type[RecipeModel], loc: Loc) -> type[RecipeModel] | None:
    """Return the model for the mapping at a path in the data, or None."""
    model: type[RecipeModel] | None = root
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = inner_model(field.annotation) if field else None
    return model


def field_at(root: type[RecipeModel], loc: Loc) -> tuple[Loc, FieldInfo] | None:
    """Return the innermost field that contains a path, with the field's own path; None if there is none."""
    for length in range(len(loc), 0, -1):
        part = loc[length - 1]
        model = model_at(root, loc[: length - 1])
        if isinstance(part, str) and model is not None and part in model.model_fields:
            return loc[:length], model.model_fields[part]
    return None


def dotted_keys(model: type[RecipeModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that a recipe may have, in the form of an override's key; items of lists are `0`."""
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = inner_model(field.annotation)
        if inner is not None:
            step = f"{name}.0." if is_list(field.annotation) else f"{name}."
            yield from dotted_keys(inner, prefix + step)


def references(model: type[RecipeModel], value: Any, loc: Loc = ()) -> Iterator[tuple[Loc, Reference, str]]:
    """Yield the path, mark and text of every value in the raw data that names an input."""
    if not isinstance(value, dict):
        return
    for name, field in model.model_fields.items():
        inner_value = value.get(name)
        mark = _mark(field, Reference)
        if mark is not None and isinstance(inner_value, str) and inner_value not in mark.generated:
            yield (*loc, name), mark, inner_value
        inner = inner_model(field.annotation)
        if inner is None:
            continue
        if isinstance(inner_value, list):
            for index, item in enumerate(inner_value):
                yield from references(inner, item, (*loc, name, index))
        else:
            yield from references(inner, inner_value, (*loc, name))


def input_keys(model: type[RecipeModel]) -> dict[str, Reference]:
    """Return the dotted keys of the fields that name inputs, with their marks; `*` stands for any item of a list."""
    return dict(_marked(model, Reference, ""))


def neutral_keys(model: type[JobRecipe]) -> list[str]:
    """Return the dotted keys of the settings that do not change a job's result; `KEY.*` stands for all keys below."""
    found = [key for key, _ in _marked(model, Neutral, "")]
    return ["run"] if model.speed_is_the_result else found


def _marked(model: type[RecipeModel], kind: type[Mark], prefix: str) -> Iterator[tuple[str, Mark]]:
    for name, field in model.model_fields.items():
        inner, mark = inner_model(field.annotation), _mark(field, kind)
        if mark is not None:
            yield f"{prefix}{name}.*" if inner else prefix + name, mark
        elif inner is not None:
            step = f"{name}.*." if is_list(field.annotation) else f"{name}."
            yield from _marked(inner, kind, prefix + step)


def _mark(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    return next((part for part in _metadata(field) if isinstance(part, kind)), None)


def _metadata(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        yield from getattr(part, "__metadata__", ())
