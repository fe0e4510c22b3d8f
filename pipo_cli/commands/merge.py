"""`pipo merge`."""

from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.checkpoints import run_name
from pipo_cli.jobs import run_job, run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("merge", epilog="Example: pipo merge outputs/sft-4b/train")(merge)


def merge(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_ADAPTER", help="Folder of a training or an adapter, or a merge recipe."),
    ],
    overrides: Overrides = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The base checkpoint (default: the one that the adapter names).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also merge into a base that is not the adapter's.")] = False,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Merge an adapter and the fully trained modules into a standalone checkpoint.

    The result is in the training's run: outputs/RUN/merge/model.
    """
    if source.endswith((".yaml", ".yml")):
        changes = [*(overrides or ()), *([f"base={base}"] if base else []), *(["force=true"] if force else [])]
        run_recipe(ctx, "merge", source, changes, out, dry_run=dry_run)
        return
    import json

    from pipo_core.errors import UsageError
    from pipo_core.recipes.load import parse_recipe
    from pipo_core.recipes.merge import MergeRecipe

    folder = Path(source)
    if (folder / "stage.json").is_file() and folder.absolute().parent.parent == out.absolute():
        run = folder.absolute().parent.name
    else:
        run = run_name("merged", source)
    # A bare folder name is a path here, not a catalog name.
    path = f"./{source}" if folder.exists() and "/" not in source else source
    values = {"kind": "merge", "run": run, "source": path, "base": base, "force": force}
    recipe = parse_recipe(json.dumps(values), "pipo merge", overrides or (), stages=())
    if not isinstance(recipe, MergeRecipe):
        raise UsageError("kind cannot be changed: pipo merge runs recipes of kind merge")
    run_job(ctx, recipe, out, dry_run=dry_run)
