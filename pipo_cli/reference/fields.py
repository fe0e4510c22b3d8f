"""A schema's field in words: its type and limits, read from its JSON schema."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipo_cli.reference.markdown import code

_PLAIN = {"boolean": "true or false", "integer": "integer", "number": "number", "string": "text", "null": "null"}

Schema = Mapping[str, Any]


def type_words(schema: Schema, links: Mapping[str, str], named: str | None = None) -> str:
    """Return the type of a field: `integer or null`, or its words, or a link to the keys of a mapping.

    `links` are the keys' links by model name; `named` is what a text names (model, data), where it names an input.
    """
    return " or ".join(dict.fromkeys(_words(part, links, named) for part in _parts(schema)))


def limits(schema: Schema) -> list[str]:
    """Return the limits of a field: of its numbers, the lengths of its lists, the pattern of its texts."""
    found = list(dict.fromkeys(_limits(schema)))
    return [
        limit for limit in found if limit.removeprefix("each ") == limit or limit.removeprefix("each ") not in found
    ]


def _words(part: Schema, links: Mapping[str, str], named: str | None) -> str:
    if "const" in part or "enum" in part:
        return ", ".join(code(str(word)) for word in part.get("enum", [part.get("const")]))
    if "$ref" in part:
        return f"mapping ({links[part['$ref'].rpartition('/')[2]]})"
    if part["type"] == "array":
        items = part["items"]
        if items.get("type") == "string" and named is not None:
            return f"[{named}](#names-and-paths), one or a list"
        if items.get("type") in _PLAIN and "enum" not in items:
            return f"list of {_PLAIN[items['type']]}s"
        return f"list of {type_words(items, links, named).replace('mapping', 'mappings')}"
    if part["type"] == "object":
        return "mapping"
    if part["type"] == "string" and named is not None:
        return f"[{named}](#names-and-paths)"
    return _PLAIN[part["type"]]


def _limits(schema: Schema) -> Iterator[str]:
    for part in _parts(schema):
        low, high = part.get("minimum"), part.get("maximum")
        if low is not None and high is not None:
            yield f"{low:g} to {high:g}"
        else:
            bounds = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
            yield from (f"{sign} {_number(part[name])}" for name, sign in bounds if name in part)
        if "pattern" in part:
            yield f"form {code(part['pattern'])}"
        if part.get("minLength"):
            yield "not empty"
        if part.get("type") == "array":
            yield from _lengths(part)
            yield from (f"each {limit}" for limit in limits(part["items"]))


def _parts(schema: Schema) -> list[Schema]:
    """Return the branches of a schema, also those of a union within a union."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    return [part for branch in branches for part in _parts(branch)] if branches else [schema]


def _lengths(part: Schema) -> Iterator[str]:
    low, high = part.get("minItems"), part.get("maxItems")
    if low is not None and low == high:
        yield f"{low} items"
    elif low == 1 and high is None:
        yield "not empty"
    elif low or high:
        yield f"{low or 0} to {high} items" if high else f"at least {low} items"


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
