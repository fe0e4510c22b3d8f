"""What `pipo eval` and `pipo bench` share: a recipe's arms, or the one arm that options describe."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.checkpoints import default_method, newest_checkpoint, run_name
from pipo_cli.jobs import load_job, run_job
from pipo_cli.options import is_change
from pipo_cli.session import say, session

Checkpoint = Annotated[
    str | None,
    typer.Option("--ckpt", metavar="DIR", help="The checkpoint; without it the newest under --out is taken."),
]


class MethodName(StrEnum):
    """The decoding methods."""

    regular = "regular"
    pipo = "pipo"


Method = Annotated[
    MethodName | None,
    typer.Option("--method", help="How it decodes; without it, what the checkpoint is made for."),
]
Taus = Annotated[
    list[float] | None,
    typer.Option("--tau", min=0.0, max=1.0, help="Keep drafts from this confidence on; several make a sweep."),
]
OptionalRecipe = Annotated[
    str | None, typer.Argument(metavar="RECIPE", help="A recipe with arms of its own, instead of --ckpt.")
]


def compare(
    ctx: typer.Context,
    kind: str,
    standard: str,
    words: Sequence[str],
    out: Path,
    *,
    ckpt: str | None,
    method: MethodName | None,
    taus: Sequence[float] | None,
    dry_run: bool,
) -> None:
    """Run the recipe that leads `words`, or `standard` with one arm made of the options.

    `words` are RECIPE (unless it is a change) and changes. With a recipe, the options replace its arms.
    """
    name, changes = standard, list(words)
    own_recipe = bool(words) and not is_change(words[0])
    if own_recipe:
        name, changes = words[0], list(words[1:])
    if not own_recipe or ckpt is not None or method is not None or taus:
        changes = [*_arm(ctx, kind, out, ckpt, method, taus or ()), *changes]
    run_job(ctx, load_job(kind, name, changes), out, dry_run=dry_run, name=name)


def _arm(
    ctx: typer.Context,
    kind: str,
    out: Path,
    ckpt: str | None,
    method: MethodName | None,
    taus: Sequence[float],
) -> list[str]:
    """Return the changes that give a recipe one arm."""
    if ckpt is None:
        folder = newest_checkpoint(out)
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
    chosen = method.value if method else default_method(checkpoint)
    if taus and chosen != "pipo":
        why = f"and --method is {chosen}" if method else f"and {ckpt} is none (no compressor in its config.json)"
        raise UsageError(f"--tau is for pair models, {why}", hint="the same without --tau")
    arm = {"name": chosen, "method": chosen, "ckpt": ckpt}
    tau = {"tau": list(taus) if len(taus) > 1 else taus[0]} if taus else {}
    return [f"run={run_name(kind, ckpt)}", f"arms={json.dumps([arm | tau])}", "baseline=null"]
