"""The questions of suites: where their files are in the cache, and how they come there."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipo_core.errors import MissingInputError
from pipo_core.files import new_file
from pipo_core.hub.cache import find_cached
from pipo_core.hub.checksums import matches
from pipo_core.hub.download import File, Item, download_named
from pipo_core.recipes.catalog import Entry, Named
from pipo_core.recipes.suite import FileSource, HubSource, WebSource, source_file
from pipo_core.recipes.suites import NamedSuite
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.text import one_line

_MOST_BYTES = 256 << 20
"""Of a file of the web."""
_STEP_SECONDS = 60.0
"""The longest silence of a server of the web."""


def find_questions(named: NamedSuite) -> Path | None:
    """Return the file of a suite's questions on this disk; None if it is not in the cache, or pipo makes them.

    A file of the web whose checksum is not the suite's counts as absent.
    """
    source = named.suite.source
    if isinstance(source, HubSource):
        return find_cached(_hub_name(named, source))
    if isinstance(source, WebSource):
        path = _web_path(source)
        return path if path.is_file() and matches(path, source.sha256) else None
    if isinstance(source, FileSource):
        return (named.path.parent / source.path).absolute()
    return None


def download_suites(
    suites: Sequence[NamedSuite], *, dry_run: bool = False, reporter: Reporter | None = None
) -> list[Item]:
    """Download the questions of suites and return one item for each suite that has any to download.

    Args:
        suites: the suites; those whose questions are on this disk, or are generated, need nothing.
        dry_run: only find out what would be transferred.
        reporter: shows progress and warnings.

    Raises:
        MissingInputError: if something does not exist, cannot be reached, or arrives damaged.
        MachineError: if the disk is full, or the cache cannot be written.
    """
    reporter = reporter or SilentReporter()
    hub = {one.name: _hub_name(one, one.suite.source) for one in suites if isinstance(one.suite.source, HubSource)}
    items = dict(zip(hub, download_named(list(hub.values()), dry_run=dry_run, reporter=reporter), strict=True))
    for one in suites:
        if isinstance(one.suite.source, WebSource):
            items[one.name] = _web_item(one, one.suite.source, reporter, dry_run=dry_run)
    return [items[one.name] for one in suites if one.name in items]


def needs_download(named: NamedSuite) -> bool:
    """Return whether a suite's questions come from the network."""
    return isinstance(named.suite.source, HubSource | WebSource)


def _hub_name(named: NamedSuite, source: HubSource) -> Named:
    entry = Entry("benchmark", source.repo, source.revision, False, named.suite.title, source.path, _then(named))
    return Named(named.given_name, entry, source.revision)


def _then(named: NamedSuite) -> str:
    return f"pipo eval --suite {named.given_name} --dry-run"


def _web_path(source: WebSource) -> Path:
    """Return where a file of the web is kept: beside the hub's cache, named by its checksum."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().parent / "pipo" / source.sha256 / source_file(source)


def _web_item(named: NamedSuite, source: WebSource, reporter: Reporter, *, dry_run: bool) -> Item:
    path = _web_path(source)
    whole = path.is_file() and matches(path, source.sha256)
    missing = 0
    if not whole and not dry_run:
        missing = _fetch(named, source, path, reporter)
    size = path.stat().st_size if path.is_file() else 0
    item = Item(named.given_name, source.url, None, path, (), whole or not dry_run, _then(named))
    return replace(item, files=(File(path.name, size, missing),))


def _fetch(named: NamedSuite, source: WebSource, path: Path, reporter: Reporter) -> int:
    """Fetch a file of the web, give it its name if its checksum is right, and return its size.

    Raises:
        MissingInputError: if it cannot be reached, is too long, or has another checksum.
    """
    import httpx

    if os.environ.get("HF_HUB_OFFLINE", "").strip() in ("1", "true", "TRUE", "ON", "YES"):
        raise MissingInputError(
            f"{named.given_name} is not in the cache, and HF_HUB_OFFLINE forbids fetching it",
            hint=f"HF_HUB_OFFLINE=0 pipo download --suite {named.given_name}",
        )
    content, state = bytearray(), hashlib.sha256()
    try:
        with (
            httpx.stream("GET", source.url, timeout=_STEP_SECONDS, follow_redirects=True) as response,
            reporter.progress(named.name, None, unit="byte") as bar,
        ):
            response.raise_for_status()
            for step in response.iter_bytes():
                content += step
                state.update(step)
                bar.advance(len(step))
                if len(content) > _MOST_BYTES:
                    raise MissingInputError(f"{source.url} is longer than {_MOST_BYTES >> 20} MiB; nothing was kept")
    except httpx.HTTPError as error:
        raise MissingInputError(
            f"{source.url} cannot be reached: {one_line(error)}",
            hint=f"get the file elsewhere and give benchmark.{named.name}=FILE",
        ) from error
    if state.hexdigest() != source.sha256:
        raise MissingInputError(
            f"{source.url} arrived damaged or was changed: its checksum is not the suite's; nothing was kept"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(content)
    return len(content)
