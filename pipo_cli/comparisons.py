"""What `pipo eval` and `pipo bench` share: their options, a recipe's arms, or the one arm that options describe."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from pipo_cli.checkpoints import default_method, newest_checkpoint, run_name
from pipo_cli.jobs import load_job, run_job
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, is_change
from pipo_cli.session import say, session
from pipo_core.recipes.methods import METHODS, MethodName


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: a recipe of one's own (None: the command's standard one), changes, one arm."""

    recipe: str | None
    changes: list[str]
    ckpt: str | None
    method: MethodName | None
    taus: list[float]
    out: Path
    dry_run: bool


def _read_options(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A recipe with arms of its own, instead of --ckpt.")
    ] = None,
    overrides: Overrides = None,
    ckpt: Annotated[
        str | None,
        typer.Option("--ckpt", metavar="DIR", help="The checkpoint; without it the newest under --out is taken."),
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option("--method", help="How it decodes; without it, what the checkpoint is made for."),
    ] = None,
    tau: Annotated[
        list[float] | None,
        typer.Option("--tau", min=0.0, max=1.0, help="Keep drafts from this confidence on; several make a sweep."),
    ] = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> Asked:
    words = [*([recipe] if recipe else []), *(overrides or ())]
    own = words.pop(0) if words and not is_change(words[0]) else None
    return Asked(own, words, ckpt, method, list(tau or ()), out, dry_run)


def comparison(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command(ctx, asked, …)` as typer needs it: with its own options and all that make up `asked`."""
    shared = inspect.signature(_read_options).parameters
    context, _, *own = inspect.signature(command).parameters.values()

    @wraps(command)
    def run(ctx: typer.Context, **values: Any) -> None:
        asked = _read_options(**{name: values.pop(name) for name in shared})
        command(ctx, asked, **values)

    run.__signature__ = inspect.Signature([context, *own, *shared.values()])  # type: ignore[attr-defined]
    return run


def compare(ctx: typer.Context, kind: str, standard: str, asked: Asked) -> None:
    """Run the recipe that was asked for, or the shipped one called `standard` with one arm made of the options.

    With a recipe of one's own, options for an arm replace its arms.
    """
    name, changes = asked.recipe or standard, asked.changes
    if asked.recipe is None or asked.ckpt is not None or asked.method is not None or asked.taus:
        changes = [*_arm(ctx, kind, name, asked), *changes]
    run_job(ctx, load_job(kind, name, changes), asked.out, dry_run=asked.dry_run, name=name)


def _arm(ctx: typer.Context, kind: str, recipe: str, asked: Asked) -> list[str]:
    """Return the changes that give a recipe one arm."""
    ckpt = asked.ckpt
    if ckpt is None:
        folder = newest_checkpoint(asked.out)
        line = f"checkpoint: {folder} (the newest)"
        if session(ctx).json:
            typer.echo(line, err=True)
        else:
            say(line)
        ckpt = str(folder)
    elif "/" not in ckpt and Path(ckpt).exists():
        ckpt = f"./{ckpt}"
    from pipo_core.errors import UsageError
    from pipo_core.pipeline.inputs import AbsentPathError, resolve_model

    # Before the recipe is loaded, so that messages speak of the options and not of what they make of a recipe.
    try:
        checkpoint = resolve_model("--ckpt", ckpt, {})
    except AbsentPathError as error:
        error.hint = "without --ckpt the newest checkpoint is taken; pipo run demo makes one"
        raise
    method, taus = asked.method or default_method(checkpoint), asked.taus
    if taus and "tau" not in METHODS[method].options:
        why = f"and --method is {method}" if asked.method else f"and {ckpt} is none (no compressor in its config.json)"
        raise UsageError(f"--tau is for pair models, {why}", hint="the same without --tau")
    arm = {"name": method, "method": method, "ckpt": ckpt}
    tau = {"tau": taus if len(taus) > 1 else taus[0]} if taus else {}
    return [f"run={_run_name(kind, recipe, ckpt)}", f"arms={json.dumps([arm | tau])}", "baseline=null"]


def _run_name(kind: str, recipe: str, ckpt: str) -> str:
    """Return a name that tells suites apart, so that none takes another's folder: `eval-math-demo-merge`."""
    parts = Path(recipe.removesuffix(".yaml")).parts[-2:]
    return run_name("-".join([kind, *(part for part in parts if part not in ("/", ".", "..", "recipes", kind))]), ckpt)
