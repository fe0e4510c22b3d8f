"""`pipo calibrate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipo_cli.checkpoints import newest_checkpoint, run_name
from pipo_cli.jobs import load_job, run_job
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, is_change
from pipo_cli.session import say, session
from pipo_core.errors import UsageError
from pipo_core.files.checkpoints import is_pair_model

STANDARD = "calibrate.yaml"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "calibrate",
        epilog="Examples: pipo calibrate tiny/calibrate --ckpt outputs/demo/opd-merge/model "
        "--regular outputs/demo/regular-sft; "
        "pipo calibrate --ckpt outputs/sft-4b/merge/model --suite math; "
        "pipo calibrate --ckpt outputs/sft-4b/merge/model --rows outputs/sft-data/build budget.slots=4096",
    )(calibrate)


def calibrate(
    ctx: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="A recipe (default: calibrate.yaml).")] = None,
    overrides: Overrides = None,
    ckpt: Annotated[
        str | None,
        typer.Option("--ckpt", metavar="DIR", help="The pair checkpoint (default: the newest one under --out)."),
    ] = None,
    regular: Annotated[
        str | None,
        typer.Option("--regular", metavar="DIR", help="The uncompressed model whose decoding is compared with."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="What is asked: a suite (pipo download --suite NAME) or group of pipo recipes ls, or a suite's file.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows", metavar="FILE", help="Instead of a suite: a training set's questions; nothing is graded."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many questions, the first.")] = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure each threshold's accuracy and each load's speed here, and write the profile that pipo serve reads.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    if suite is not None and rows is not None:
        raise UsageError("--suite and --rows: give one of them", hint="rows are asked without being graded")
    words = [*([recipe] if recipe else []), *(overrides or ())]
    own = words.pop(0) if words and not is_change(words[0]) else None
    changes: dict[str, Any] = {}
    if ckpt is not None or own is None:
        changes |= _checkpoint(ctx, ckpt, out)
    if regular is not None:
        changes["regular"] = {"ckpt": _as_path(regular)}
    if suite is not None:
        changes |= {"suite": suite, "rows": None}
    if rows is not None:
        changes |= {"suite": None, "rows": {"file": _as_path(rows)}}
    if limit is not None:
        changes["rows.count" if rows is not None else "problems.count"] = limit
    name = own or STANDARD
    loaded = load_job("calibrate", name, [*(f"{key}={json.dumps(one)}" for key, one in changes.items()), *words])
    run_job(ctx, loaded, out, dry_run=dry_run, name=name)


def _checkpoint(ctx: typer.Context, ckpt: str | None, out: Path) -> dict[str, Any]:
    """Return the changes that name the checkpoint and the run after it.

    Raises:
        MissingInputError: if there is no such checkpoint.
        UsageError: if it is not a pair model.
    """
    from pipo_core.pipeline.inputs import AbsentPathError, resolve_model

    if ckpt is None:
        ckpt = str(newest_checkpoint(out))
        line = f"checkpoint: {ckpt} (the newest)"
        if session(ctx).json:
            typer.echo(line, err=True)
        else:
            say(line)
    ckpt = _as_path(ckpt)
    try:
        folder = resolve_model("--ckpt", ckpt, {})
    except AbsentPathError as error:
        error.hint = "without --ckpt the newest checkpoint is taken; pipo run demo makes one"
        raise
    if not is_pair_model(folder):
        raise UsageError(
            f"--ckpt {ckpt} is not a pair model (no compressor in its config.json), so it has no threshold",
            hint="give a pair model, and this one as --regular",
        )
    return {"run": run_name("calibrate", ckpt), "ckpt": ckpt}


def _as_path(name: str) -> str:
    """Return a name that cannot be taken for one of the catalog if it is a folder here."""
    return f"./{name}" if "/" not in name and Path(name).exists() else name
