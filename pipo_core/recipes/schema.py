"""Looks into the schemas: the fields at a path, the keys of a recipe, and the fields with a mark."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from pipo_core.recipes.base import JobRecipe, Loc, Neutral, RecipeModel, Reference

Mark = TypeVar("Mark")


def inner_models(annotation: Any) -> list[type[RecipeModel]]:
    """Return the recipe models inside an annotation such as `list[Arm] | None`; a union may have several."""
    if isinstance(annotation, type) and issubclass(annotation, RecipeModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in inner_models(part)]


def is_list(annotation: Any) -> bool:
    """Return whether an annotation such as `list[Arm] | None` has a list in it."""
    return get_origin(annotation) is list or any(is_list(part) for part in get_args(annotation))


def choices(annotation: Any) -> list[str]:
    """Return the words of the `Literal` in an annotation, or nothing."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in choices(part)]


def fields_at(root: type[RecipeModel], loc: Loc) -> dict[str, FieldInfo]:
    """Return the fields that the mapping at a path in the data may have; none if there is no mapping.

    Of a union's models, which may have a field in common, the first one's field is taken.
    """
    models = [root]
    for part in loc:
        if isinstance(part, str):
            found = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in found for inner in inner_models(field.annotation)]
    return {name: field for model in reversed(models) for name, field in model.model_fields.items()}


def field_at(root: type[RecipeModel], loc: Loc) -> tuple[Loc, FieldInfo] | None:
    """Return the innermost field that contains a path, with the field's own path; None if there is none."""
    for length in range(len(loc), 0, -1):
        part = loc[length - 1]
        fields = fields_at(root, loc[: length - 1])
        if isinstance(part, str) and part in fields:
            return loc[:length], fields[part]
    return None


def dotted_keys(model: type[RecipeModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that a recipe may have, in the form of an override's key; items of lists are `0`."""
    for name, field in model.model_fields.items():
        yield prefix + name
        step = f"{name}.0." if is_list(field.annotation) else f"{name}."
        for inner in inner_models(field.annotation):
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
        elif mark is not None and isinstance(inner_value, list):  # a field that takes one input or several
            yield from (
                ((*loc, name, index), mark, item) for index, item in enumerate(inner_value) if isinstance(item, str)
            )
        for inner in inner_models(field.annotation):
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
        inside, mark = inner_models(field.annotation), _mark(field, kind)
        if mark is not None:
            yield f"{prefix}{name}.*" if inside else prefix + name, mark
            continue
        step = f"{name}.*." if is_list(field.annotation) else f"{name}."
        for inner in inside:
            yield from _marked(inner, kind, prefix + step)


def _mark(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    return next((part for part in _metadata(field) if isinstance(part, kind)), None)


def _metadata(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        yield from getattr(part, "__metadata__", ())
