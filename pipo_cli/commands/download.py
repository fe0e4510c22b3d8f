"""`pipo download`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo_cli.options import Debug, DryRun, Json
from pipo_cli.session import emit_json, say, session

if TYPE_CHECKING:
    from pipo_core.hub.download import Item


class Kind(StrEnum):
    """Kinds of repositories on the hub."""

    model = "model"
    data = "data"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "download",
        epilog="Examples: pipo download --list; pipo download tiny; pipo download qwen3.5-4b pipo-sft-data; "
        "pipo download --suite gates; pipo download Qwen/Qwen3.5-4B@main --dry-run (files and bytes, nothing is "
        "transferred).",
    )(download)


def download(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="A catalog name (--list), 'tiny' (the bundled models), or a hub id (owner/name); "
            "NAME@REVISION takes a branch, a tag or a commit.",
        ),
    ] = None,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite", metavar="NAME", help="The questions of a suite or group (pipo recipes ls), or of a suite's file."
        ),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the catalog, and which of it is in the cache.")] = False,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Where the bundled models are copied to (default: ./models)."),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="Kind of the repository that a hub id names.")] = Kind.model,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Download models, adapters and data by short name or hub id; 'tiny' copies the bundled models to ./models.

    Downloads go into the Hugging Face cache (HF_HOME), where recipes find them by the same name. After an interruption,
    the same command goes on in the middle of a file. Every file is checked against the hub's checksum, also those that
    were in the cache before; a damaged file is named and fetched again. Pickled weights (.bin, .pt) are never fetched.
    HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE work as in huggingface_hub.
    """
    if listing:
        _list(ctx)
        return
    from pipo_cli.reporter import open_reporter
    from pipo_core.errors import UsageError
    from pipo_core.hub.download import download as get

    if not names and not suites:
        raise UsageError("what to download?", hint="pipo download --list")
    items = get(names, to=to, kind=kind.value, dry_run=dry_run, reporter=open_reporter()) if names else []
    items += _questions(suites or (), dry_run=dry_run)
    if session(ctx).json:
        emit_json({"dry_run": dry_run, "items": [_item_figures(item) for item in items]})
        return
    if dry_run:
        _show_plan(items)
    else:
        for item in items:
            say(f"{item.name}: {item.path} ({_facts(item)})")
    for command in dict.fromkeys(item.then for item in items if item.then):
        say(f"next: {command}")


def _questions(names: Sequence[str], *, dry_run: bool) -> list["Item"]:
    """Return the items of suites, each once; say which suites need no download."""
    if not names:
        return []
    from pipo_cli.reporter import open_reporter
    from pipo_core.hub.questions import download_suites, needs_download
    from pipo_core.recipes.suites import find_suites

    found = {one.path: one for name in names for one in find_suites(name)}
    reporter = open_reporter()
    for one in found.values():
        if not needs_download(one):
            reporter.info(f"{one.name}: its questions need no download")
    return download_suites([one for one in found.values() if needs_download(one)], dry_run=dry_run, reporter=reporter)


def _item_figures(item: "Item") -> dict[str, Any]:
    return {
        "name": item.name,
        "source": item.source,
        "commit": item.commit,
        "path": str(item.path),
        "bytes": item.bytes,
        "missing_bytes": item.missing,
        "checked": item.checked,
        "files": [{"name": file.name, "bytes": file.bytes, "missing_bytes": file.missing} for file in item.files],
        "next": item.then or None,
    }


def _facts(item: "Item") -> str:
    from pipo_core.hub.sizes import size_text

    files = f"{len(item.files)} files" if len(item.files) != 1 else "1 file"
    if item.source == "bundled":
        return f"copied: {files}, {size_text(item.bytes)}"
    came = f"{size_text(item.missing)} transferred" if item.missing else "nothing transferred"
    return f"{files}, {size_text(item.bytes)}, {came}, {'checksums correct' if item.checked else 'not checked'}"


def _show_plan(items: Sequence["Item"]) -> None:
    from pipo_cli.tables import show_table
    from pipo_core.hub.sizes import size_text
    from pipo_core.tables import ABSENT, Table

    for item in items:
        at = f" at commit {item.commit[:12]}" if item.commit else ""
        rows = [
            [file.name, size_text(file.bytes), size_text(file.missing) if file.missing else ABSENT]
            for file in item.files
        ]
        show_table(Table(f"{item.name}: {item.source}{at}", ["file", "size", "to transfer"], rows))
        say(f"path: {item.path}")
        say()
    total, missing = sum(item.bytes for item in items), sum(item.missing for item in items)
    say(f"{size_text(total)} in all, {size_text(missing)} to transfer")
    say("dry run: nothing was downloaded or written")


def _list(ctx: typer.Context) -> None:
    from pipo_cli.tables import show_table
    from pipo_core.hub.cache import find_cached
    from pipo_core.recipes.catalog import CATALOG, Named
    from pipo_core.tables import ABSENT, Table

    rows, cells = [], []
    for name, entry in CATALOG.items():
        path = None if entry.bundled else find_cached(Named(name, entry, entry.revision))
        source = "bundled" if entry.bundled else entry.repo
        rows.append({"name": name, "kind": entry.kind, "from": source, "path": path, "note": entry.note})
        cells.append([name, entry.kind, source, "yes" if path else ABSENT, entry.note])
    if session(ctx).json:
        emit_json(rows)
    else:
        show_table(Table("", ["name", "kind", "from", "cached", "note"], cells, words=(0, 1, 2, 3, 4)))
