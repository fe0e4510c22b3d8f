"""Every key of every kind of recipe as Markdown, read from the schemas that recipes are checked with."""

from collections.abc import Iterator
from typing import Any, get_args

from pipo_cli.reference.fields import limits, type_words
from pipo_cli.reference.markdown import anchor, code, plain, table, value
from pipo_core.recipes.base import JobRecipe, RecipeModel
from pipo_core.recipes.catalog import CATALOG, Entry
from pipo_core.recipes.kinds import FILE_KINDS, KINDS
from pipo_core.recipes.load import load_recipe, load_suite_file
from pipo_core.recipes.locate import shipped_recipes, shipped_suites
from pipo_core.recipes.schema import neutral_keys, references

Model = type[RecipeModel]
Headings = dict[Model, str]


def recipe_reference() -> str:
    """Return a section for each kind, the parts that several kinds share, the catalog and the shipped recipes."""
    places = _places()
    headings = {model: _heading(found) + _kind_of(model) for model, found in places.items()}
    sections = [_overview()]
    for kind, model in FILE_KINDS.items():
        sections.append(_kind_section(kind, model, headings))
        own = [inner for inner, found in places.items() if {where for where, _ in found} == {kind}]
        sections += [_part_section(inner, headings) for inner in own]
    shared = [model for model, found in places.items() if len({where for where, _ in found}) > 1]
    sections += ["## Parts of several kinds\n", *(_part_section(model, headings) for model in shared)]
    return "\n".join([*sections, _catalog(), _shipped(), _suites()])


def models_in(annotation: Any) -> list[Model]:
    """Return every recipe model inside an annotation such as `list[Arm] | None`, in order."""
    if isinstance(annotation, type) and issubclass(annotation, RecipeModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def _places() -> dict[Model, list[tuple[str, str]]]:
    """Return, for each model inside the kinds' schemas, the places where it occurs: kind and dotted key."""
    places: dict[Model, list[tuple[str, str]]] = {}
    for kind, root in FILE_KINDS.items():
        for model, key in _inside(root, ""):
            places.setdefault(model, []).append((kind, key))
    return places


def _inside(model: Model, prefix: str) -> Iterator[tuple[Model, str]]:
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield inner, prefix + name
            yield from _inside(inner, f"{prefix}{name}.")


def _heading(places: list[tuple[str, str]]) -> str:
    """Return places as text: `train: optimizer`, `eval, bench: arms` or `rollout: problems, build: worked`."""
    kinds: dict[str, list[str]] = {}
    for kind, key in places:
        kinds.setdefault(key, []).append(kind)
    return ", ".join(f"{', '.join(where)}: {key}" for key, where in kinds.items())


def _kind_of(model: Model) -> str:
    """Return the kind that tells a model apart from others at the same key, as text; empty if it is alone there."""
    field = model.model_fields.get("kind")
    return "" if field is None else f", kind {get_args(field.annotation)[0]}"


def _overview() -> str:
    rows = []
    for kind, model in FILE_KINDS.items():
        command = f"pipo {'run' if kind == 'pipeline' else kind if kind in KINDS else 'eval'}"
        rows.append([f"[{code(kind)}](#kind-{kind})", f"[{code(command)}](cli.md#{anchor(command)})", _about(model)])
    return "## Kinds\n\n" + table(["kind", "command", "does"], rows)


def _kind_section(kind: str, model: Model, headings: Headings) -> str:
    free = ", ".join(code(key) for key in neutral_keys(model) if key != "run") if issubclass(model, JobRecipe) else ""
    line = f"\nThe result does not depend on {free}: a run also goes on after a change of these.\n" if free else ""
    return f"## kind: {kind}\n\n{_body(model, headings)}{line}"


def _part_section(model: Model, headings: Headings) -> str:
    return f"### {headings[model]}\n\n{_body(model, headings)}"


def _body(model: Model, headings: Headings) -> str:
    together = model.findings.__doc__ if model.findings is not RecipeModel.findings else None
    rows = [_field_row(model, name, headings) for name in model.model_fields]
    return "\n\n".join(
        [
            _about(model),
            *([f"Across keys: {plain(together)}"] if together else []),
            table(["key", "type", "default", "range", "meaning"], rows),
        ]
    )


def _field_row(model: Model, name: str, headings: Headings) -> list[str]:
    field = model.model_fields[name]
    schema = model.model_json_schema()["properties"][name]
    inner = models_in(field.annotation)
    links = {part.__name__: f"[keys](#{anchor(headings[part])})" for part in inner}
    mark = next(references(model, {name: "x"}), None)
    return [
        code(name),
        type_words(schema, links, mark[1].kind if mark else None),
        _default(model, name),
        ", ".join(limits(schema)),
        plain(field.description or (_about(inner[0]) if inner else "")),
    ]


def _default(model: Model, name: str) -> str:
    field = model.model_fields[name]
    whole = model in FILE_KINDS.values()
    # A file must say what it is, though Python fills it in.
    if field.is_required() or (whole and name == "kind"):
        return "**needed**"
    if whole and name == "run":
        return "the file's name"
    default = field.get_default(call_default_factory=True)
    if not isinstance(default, RecipeModel):
        return code(value(default))
    usual = type(default)().model_dump(mode="json")
    changed = {key: item for key, item in default.model_dump(mode="json").items() if item != usual[key]}
    return code(value(changed)) if changed else ""


def _catalog() -> str:
    rows = [
        [code(name), entry.kind, _source(entry), plain(entry.note), plain(entry.licence or "unknown")]
        for name, entry in CATALOG.items()
    ]
    return "## Catalog\n\n" + table(["name", "is", "from", "what", "licence"], rows)


def _source(entry: Entry) -> str:
    if entry.bundled:
        return "bundled"
    revision = f" at {code(entry.revision[:8])}" if entry.revision else ""
    return code(entry.repo) + revision + (f", {code(entry.path)}" if entry.path else "")


def _shipped() -> str:
    rows = []
    for name, path in shipped_recipes().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        kind = load_recipe(path).kind
        rows.append([f"[{code(name)}](../recipes/{name})", f"[{kind}](#kind-{kind})", plain(first.lstrip("# "))])
    return "## Shipped recipes\n\n" + table(["recipe", "kind", "does"], rows)


def _suites() -> str:
    rows = []
    for name, path in shipped_suites().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        kind = load_suite_file(path).kind
        link = f"[{code(name)}](../recipes/suites/{path.name})"
        rows.append([link, f"[{kind}](#kind-{kind})", plain(first.lstrip("# "))])
    return "## Shipped suites\n\n" + table(["suite", "kind", "asks"], rows)


def _about(model: Model) -> str:
    return plain(model.__doc__ or "")
