"""`pipo recipes`: the shipped recipes and the schemas."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo_cli.options import Debug, Json, Overrides, RecipeName, is_change
from pipo_cli.session import emit_json, say, session

if TYPE_CHECKING:
    from pipo_core.errors import PipoError
    from pipo_core.recipes.base import RecipeModel

app = typer.Typer(
    help="List, show, copy and check recipes and suites.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command("ls", epilog="Example: pipo recipes ls")
def ls(ctx: typer.Context, json_output: Json = False, debug: Debug = False) -> None:
    """List the shipped recipes, and the suites that pipo eval takes."""
    from pipo_core.recipes.locate import shipped_files

    rows = [{"name": name, **_about(path)} for name, path in shipped_files().items()]
    if session(ctx).json:
        emit_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        say(f"{row['name'].ljust(width)}  {row['kind'].ljust(8)}  {row['about']}")


@app.command("show", epilog="Example: pipo recipes show tiny/sft.yaml optimizer.learning_rate=1e-3 --resolved")
def show(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Apply the changes and fill in every default.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Print a recipe, as in its file or with every default filled in."""
    from pipo_core.recipes.locate import find_recipe

    path = find_recipe(recipe)
    if not resolved and not overrides and not session(ctx).json:
        typer.echo(path.read_text(encoding="utf-8"), nl=False)
        return
    from pipo_core.recipes.load import load_file
    from pipo_core.recipes.write import to_yaml

    values = load_file(path, overrides or ()).model_dump(mode="json")
    if session(ctx).json:
        emit_json(values)
    else:
        typer.echo(to_yaml(values), nl=False)


@app.command("copy", epilog="Example: pipo recipes copy sft.yaml my-sft.yaml")
def copy(
    ctx: typer.Context,
    recipe: RecipeName,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The new file, or a folder for it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a recipe to a file of your own; its runs are named after that file.

    A pipeline's copy still finds the shipped stages.
    """
    from pipo_core.errors import UsageError
    from pipo_core.files import write_atomic
    from pipo_core.recipes.locate import find_recipe

    source = find_recipe(recipe)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="another name, or --force to replace it")
    # With the original's `run`, the copy's results would take the place of the original's.
    write_atomic(target, re.sub(r"(?m)^run:.*\n", "", source.read_text(encoding="utf-8"), count=1))
    if session(ctx).json:
        emit_json({"from": str(source), "to": str(target)})
    else:
        say(f"written: {target}")


@app.command(
    "validate",
    epilog="Examples: pipo recipes validate recipes/*.yaml; pipo recipes validate my-sft.yaml batch.per_device=2",
)
def validate(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE",
            help="Recipe files or names of shipped ones; words with = or a leading ~ are changes to each of them.",
        ),
    ],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Check recipes and list every problem with its line and column; the exit code is 2 if there is one."""
    from pipo_core.errors import PipoError, UsageError

    names = [word for word in words if not is_change(word)]
    changes = [word for word in words if is_change(word)]
    if not names:
        raise UsageError("which recipe?", hint="pipo recipes ls")
    valid: list[dict[str, Any]] = []
    failed: list[PipoError] = []
    for name in names:
        try:
            valid.append(_checked(name, changes))
        except PipoError as error:
            failed.append(error)
    if not session(ctx).json:
        from pipo_core.recipes.kinds import KINDS

        for row in valid:
            say(f"{row['recipe']}: a valid {row['kind']} {'recipe' if row['kind'] in KINDS else 'file'}")
    if failed:
        raise _together(failed, len(names))
    if session(ctx).json:
        emit_json(valid[0] if len(names) == 1 else valid)


@app.command("schema", epilog="Example: pipo recipes schema train")
def schema(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="train, distill, rollout, build, merge, eval, bench, calibrate, pipeline, suite or suites.",
        ),
    ],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List every key of a kind of recipe with its default and meaning; --json gives the JSON schema."""
    from pipo_core.recipes.load import known_model

    model = known_model(kind)
    if session(ctx).json:
        emit_json(model.model_json_schema())
        return
    for key, default, about in _keys(model, ""):
        say(f"{key}{f' = {default}' if default is not None else ''}")
        if about:
            say(f"    {about}")


def _checked(name: str, changes: Sequence[str]) -> dict[str, Any]:
    from pipo_core.recipes.load import load_file
    from pipo_core.recipes.locate import find_recipe

    path = find_recipe(name)
    kind = load_file(path, changes).model_dump()["kind"]
    if kind == "suites":
        from pipo_core.recipes.suites import find_suites

        find_suites(str(path))  # its members are there and valid
    return {"recipe": str(path), "kind": kind, "problems": []}


def _together(failed: "Sequence[PipoError]", checked: int) -> "PipoError":
    """Return the failure if there is one, else a failure with the problems of all of them."""
    from pipo_core.errors import RecipeError

    if len(failed) == 1:
        return failed[0]
    problems = [
        problem for error in failed for problem in (error.problems if isinstance(error, RecipeError) else [str(error)])
    ]
    return RecipeError(problems, name=f"{len(failed)} of {checked} recipes", hint=failed[0].hint)


def _about(path: Path) -> dict[str, str]:
    """Return the kind and the first comment line of a recipe, read as text, because `ls` also shows broken recipes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("kind:")), "?")
    about = lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""
    return {"kind": kind, "about": about}


def _keys(model: "type[RecipeModel]", prefix: str) -> Iterator[tuple[str, str | None, str | None]]:
    import json

    from pipo_core.recipes.base import RecipeModel
    from pipo_core.recipes.schema import choices, inner_models, is_list

    for name, field in model.model_fields.items():
        inside = inner_models(field.annotation)
        default: Any = field.default
        plain = field.is_required() or isinstance(default, RecipeModel)
        shown = None if plain else json.dumps(default)
        words = choices(field.annotation)
        about = field.description or (inside[0].__doc__ if inside else "") or ""
        yield f"{prefix}{name}", shown, f"[{' | '.join(words)}] {about}".rstrip() if words else about
        for inner in inside:
            yield from _keys(inner, f"{prefix}{name}.{'N.' if is_list(field.annotation) else ''}")
