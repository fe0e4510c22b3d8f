"""`pipo download`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.options import Debug, DryRun, Json
from pipo_cli.session import emit_json, say, session


class Kind(StrEnum):
    """What a hub id names."""

    model = "model"
    data = "data"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("download", epilog="Examples: pipo download --list; pipo download tiny; pipo download qwen3.5-4b")(
        download
    )


def download(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A catalog name, 'tiny', or a hub id (owner/name).")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the catalog.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="A folder instead of the Hugging Face cache.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="A commit, tag or branch.")] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="What a hub id names.")] = Kind.model,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Get models, adapters and data by short name; 'tiny' copies the bundled models to ./models.

    Downloads are resumed and verified, and lie in the Hugging Face cache, where recipes find them.
    """
    if listing:
        _list(ctx)
        return
    from pipo_core.errors import UsageError
    from pipo_core.hub.download import download as get

    if name is None:
        raise UsageError("what to download?", hint="pipo download --list")
    items = get(name, to=to, revision=revision, kind=kind.value, dry_run=dry_run)
    if session(ctx).json:
        rows = [
            {
                "name": item.name,
                "source": item.source,
                "path": item.path and str(item.path),
                "bytes": item.bytes,
            }
            for item in items
        ]
        emit_json({"dry_run": dry_run, "items": rows})
        return
    for item in items:
        size = f", {_size(item.bytes)}" if item.bytes is not None and (dry_run or item.bytes) else ""
        say(f"{item.name}: {item.path or 'the Hugging Face cache'} (from {item.source}{size})")
    if dry_run:
        say("dry run: nothing was downloaded or written")


def _list(ctx: typer.Context) -> None:
    from pipo_core.recipes.catalog import CATALOG

    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "from": "bundled" if entry.bundled else entry.repo,
            "note": entry.note,
        }
        for name, entry in CATALOG.items()
    ]
    if session(ctx).json:
        emit_json(rows)
        return
    widths = {key: max(len(row[key]) for row in rows) for key in ("name", "kind", "from")}
    for row in rows:
        say("  ".join([*(row[key].ljust(width) for key, width in widths.items()), row["note"]]))


def _size(count: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
