"""The part that `pipo eval` and `pipo bench` share: their options, and a recipe's arms or one arm made of options."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo_cli.checkpoints import default_method, newest_checkpoint, run_name
from pipo_cli.jobs import load_job, run_job
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, is_change
from pipo_cli.session import say, session
from pipo_core.errors import UsageError
from pipo_core.recipes.methods import METHODS, PLAIN, MethodName

if TYPE_CHECKING:
    from pipo_core.recipes.common import EngineSettings


@dataclass(frozen=True)
class Asked:
    """The parsed command line.

    Attributes:
        recipe: the recipe that the user names; None for the command's shipped one.
        changes: changes to the recipe.
        ckpt: the checkpoint of the one arm; None for the newest.
        method: its method; None for the checkpoint's default.
        taus: its thresholds.
        out: the folder of all runs.
        dry_run: whether only the plan is shown.
    """

    recipe: str | None
    changes: list[str]
    ckpt: str | None
    method: MethodName | None
    taus: list[float]
    out: Path
    dry_run: bool


def _read_options(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A recipe with its own arms, instead of --ckpt.")
    ] = None,
    overrides: Overrides = None,
    ckpt: Annotated[
        str | None,
        typer.Option("--ckpt", metavar="DIR", help="The checkpoint (default: the newest pair model under --out)."),
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option("--method", help="Decoding method (default: pipo for a pair model, else regular)."),
    ] = None,
    tau: Annotated[
        list[float] | None,
        typer.Option(
            "--tau", min=0.0, max=1.0, help="Keep drafts whose confidence is at least this; repeat for a sweep."
        ),
    ] = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> Asked:
    words = [*([recipe] if recipe else []), *(overrides or ())]
    own = words.pop(0) if words and not is_change(words[0]) else None
    taus = list(tau or ())
    for index, one in enumerate(taus):
        if one in taus[:index]:
            raise UsageError(f"--tau: {one:g} is given twice")
    return Asked(own, words, ckpt, method, taus, out, dry_run)


def comparison(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command(ctx, asked, …)` in typer's form: with its own options and those that make up `asked`."""
    shared = inspect.signature(_read_options).parameters
    context, _, *own = inspect.signature(command).parameters.values()

    @wraps(command)
    def run(ctx: typer.Context, **values: Any) -> None:
        asked = _read_options(**{name: values.pop(name) for name in shared})
        command(ctx, asked, **values)

    run.__signature__ = inspect.Signature([context, *own, *shared.values()])  # type: ignore[attr-defined]
    return run


def compare(
    ctx: typer.Context,
    kind: str,
    standard: str,
    asked: Asked,
    engines: Mapping[str, "EngineSettings"] = MappingProxyType({}),
    *,
    about: str | None = None,
    presets: Sequence[str] = (),
) -> None:
    """Run the user's recipe, or the shipped one with arms made of the options.

    With the user's recipe, options of an arm replace the recipe's arms.

    Args:
        ctx: typer's.
        kind: the kind of recipe.
        standard: the shipped recipe's name.
        asked: the command line.
        engines: what answers instead of the recipe's engine, by names; the arm is measured on each.
        about: what is measured, for the run's name; None for the recipe's name.
        presets: of sampling; the arm is measured with each.

    Raises:
        UsageError: for several presets and a recipe with its own arms.
    """
    name, changes = asked.recipe or standard, asked.changes
    if asked.recipe is None or asked.ckpt is not None or asked.method is not None or asked.taus or engines:
        arms = _Variants(engines, presets)
        changes = [*_arms(ctx, kind, about or _about(kind, name), asked, arms), *changes]
    elif len(presets) > 1:
        raise UsageError("the recipe's arms are sampled in one way each", hint="give arms a sampling of their own")
    elif presets:
        changes = [f"sampling={presets[0]}", *changes]
    run_job(ctx, load_job(kind, name, changes), asked.out, dry_run=asked.dry_run, name=name)


@dataclass(frozen=True)
class _Variants:
    """On what the arm of the options is measured; each combination is an arm.

    Attributes:
        engines: what answers, by names; none for the recipe's engine.
        presets: of sampling; none for the recipe's.
    """

    engines: Mapping[str, "EngineSettings"]
    presets: Sequence[str]

    def of(self, arm: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the arm in each variant, named after what tells it apart."""
        arms = [
            {**arm, "name": name, "engine": self.engines[name].model_dump(mode="json")} for name in self.engines
        ] or [arm]
        if not self.presets:
            return arms
        several = len(self.presets) > 1
        return [
            {**one, "name": f"{one['name']}-{preset}" if several else one["name"], "sampling": preset}
            for one in arms
            for preset in self.presets
        ]


def _arms(ctx: typer.Context, kind: str, about: str, asked: Asked, variants: _Variants) -> list[str]:
    """Return the changes that replace a recipe's arms by those that the options describe."""
    ckpt = asked.ckpt
    if ckpt is None and variants.engines and kind == "eval":
        if asked.taus or asked.method:
            raise UsageError("--method and --tau are of a checkpoint", hint="the same with --ckpt")
        return _changes(
            "-".join([kind, about, *variants.engines]), variants.of({"name": PLAIN.name, "method": PLAIN.name})
        )
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
    from pipo_core.pipeline.inputs import AbsentPathError, resolve_model

    # Checked before the recipe is loaded, so that messages name the options and not keys of the recipe.
    try:
        checkpoint = resolve_model("--ckpt", ckpt, {})
    except AbsentPathError as error:
        error.hint = "without --ckpt the newest checkpoint is taken; pipo run demo makes one"
        raise
    method, taus = asked.method or default_method(checkpoint), asked.taus
    if taus and "tau" not in METHODS[method].options:
        why = (
            f"and --method is {method}" if asked.method else f"and {ckpt} is not one (no compressor in its config.json)"
        )
        raise UsageError(f"--tau is for pair models, {why}", hint="the same without --tau")
    arm: dict[str, Any] = {"name": method, "method": method, "ckpt": ckpt}
    arm |= {"tau": taus if len(taus) > 1 else taus[0]} if taus else {}
    name = run_name("-".join(part for part in (kind, about) if part), ckpt)
    return _changes("-".join([name, *variants.engines]), variants.of(arm), sweep=len(taus) > 1)


def _changes(run: str, arms: list[dict[str, Any]], *, sweep: bool = False) -> list[str]:
    """Return the changes that give a recipe a name and arms; the first of several is the baseline, unless a sweep."""
    baseline = arms[0]["name"] if len(arms) > 1 and not sweep else None
    return [f"run={run}", f"arms={json.dumps(arms)}", f"baseline={json.dumps(baseline)}"]


def _about(kind: str, recipe: str) -> str:
    """Return what a recipe is about, for a run's name: suites and recipes have different folders."""
    parts = Path(recipe.removesuffix(".yaml")).parts[-2:]
    return "-".join(part for part in parts if part not in ("/", ".", "..", "recipes", kind))
