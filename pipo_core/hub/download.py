"""Models, adapters, data and benchmarks by short name or hub id.

Bundled models are copied; everything else goes into the Hugging Face cache, where recipes find it. huggingface_hub
authenticates, finds proxies and knows the cache's layout. Listings, transfers and links are ours: huggingface_hub
compares sizes only, discards the bytes of an interrupted transfer, names files after what a server's headers say, and
reads replies of any length.
"""

import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipo_core.errors import MachineError, MissingInputError, UsageError
from pipo_core.files import new_folder, read_object
from pipo_core.hub.cache import Store, find_cached, link_files, open_store
from pipo_core.hub.checksums import matches
from pipo_core.hub.failures import hub_errors, unreachable
from pipo_core.hub.listing import Listing, RemoteFile, list_files
from pipo_core.hub.sizes import size_text
from pipo_core.hub.transfer import bytes_there, transfer
from pipo_core.recipes.catalog import CATALOG, Kind, Named, find_name
from pipo_core.recipes.locate import bundled_model
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.text import did_you_mean

TINY = "tiny"
MODELS = Path("models")


@dataclass(frozen=True)
class File:
    """One file of an item.

    Attributes:
        name: its name in the repository.
        bytes: its size.
        missing: how many of its bytes were not in the cache before the download.
    """

    name: str
    bytes: int
    missing: int


@dataclass(frozen=True)
class Item:
    """What one name stands for.

    Attributes:
        name: as the user gave it.
        source: the repository's address, or `bundled`.
        commit: the repository's commit; None for bundled models.
        path: where the files are, or will be.
        files: the files.
        checked: whether every file is known to have the hub's checksum. False before a download, and when the hub
            cannot be reached.
        then: the next command to run.
    """

    name: str
    source: str
    commit: str | None
    path: Path
    files: tuple[File, ...]
    checked: bool
    then: str

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def missing(self) -> int:
        """Return how many bytes were not in the cache before the download."""
        return sum(file.missing for file in self.files)


def download(
    names: Sequence[str],
    *,
    to: Path | None = None,
    kind: Kind = "model",
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> list[Item]:
    """Download what the names stand for and return one item for each of them.

    Nothing is transferred before all names are known to exist and their files to fit onto the disk.

    Args:
        names: names in the catalog, `tiny` (all bundled models), or hub ids; `@REVISION` behind a name chooses a
            branch, a tag or a commit.
        to: the folder that bundled models are copied to, each into a folder of its name (default ./models).
        kind: what a hub id stands for.
        dry_run: only find out what would be transferred.
        reporter: shows progress and warnings.

    Raises:
        UsageError: if a name has a malformed revision, or `to` is given for names of the hub.
        MissingInputError: if something does not exist, cannot be reached, or arrives damaged.
        MachineError: if the disk is full, or would be, or the cache cannot be written.
    """
    bundled = [key for key, entry in CATALOG.items() if entry.bundled]
    spread = dict.fromkeys(each for name in names for each in (bundled if name == TINY else [name]))
    wanted = [_named(name, kind) for name in spread]
    remote = [named for named in wanted if not named.entry.bundled]
    if to is not None and remote:
        name = remote[0].text
        raise UsageError(
            f"--to is for the bundled models; {name} goes into the Hugging Face cache",
            hint=f"HF_HOME=DIR {remote[0].download_command}",
        )
    return download_named(wanted, to=to, dry_run=dry_run, reporter=reporter or SilentReporter())


def download_named(
    wanted: Sequence[Named], *, reporter: Reporter, to: Path | None = None, dry_run: bool = False
) -> list[Item]:
    """Download what is named and return one item for each; see `download`."""
    plans = {named.text: _plan(named, reporter, dry_run=dry_run) for named in wanted if not named.entry.bundled}
    if not dry_run:
        _require_space([plan for plan in plans.values() if isinstance(plan, _Plan)])
    items = []
    for named in wanted:
        plan = plans.get(named.text)
        if plan is None:
            items.append(_copy_bundled(named, (to or MODELS) / named.text, dry_run=dry_run))
        elif isinstance(plan, Item):
            items.append(plan)
        else:
            items.append(plan.item if dry_run else _fetch(plan, reporter))
    return items


def _named(name: str, kind: Kind) -> Named:
    named = find_name(name, kind)
    if named is not None:
        return named
    short, at, revision = name.partition("@")
    if at and (short == TINY or (short in CATALOG and CATALOG[short].bundled)):
        raise UsageError(f"{name}: bundled models have no revisions", hint=f"pipo download {short}")
    if at and find_name(short, kind) is not None:
        raise UsageError(f"{name}: {revision!r} is not a revision: give a branch, a tag, or a commit's 40 digits")
    guess = did_you_mean(short, [*CATALOG, TINY])
    raise MissingInputError(f"{name!r} is neither a catalog name nor a hub id{guess}", hint="pipo download --list")


def _copy_bundled(named: Named, target: Path, *, dry_run: bool) -> Item:
    sources = [file for file in sorted(bundled_model(named.text).iterdir()) if file.is_file()]
    if not dry_run:
        with new_folder(target) as folder:
            for file in sources:
                shutil.copyfile(file, folder / file.name)
    files = tuple(File(file.name, file.stat().st_size, 0) for file in sources)
    return Item(named.text, "bundled", None, target, files, True, named.entry.then)


@dataclass(frozen=True)
class _Plan:
    """A download to be done: the item that it makes, all files, and the contents to transfer."""

    named: Named
    item: Item
    listing: Listing
    store: Store
    absent: tuple[RemoteFile, ...]


def _plan(named: Named, reporter: Reporter, *, dry_run: bool) -> _Plan | Item:
    """Return the download to be done, or the item in the cache if the hub cannot be reached."""
    from httpx import HTTPError

    store = open_store(named.entry)
    with hub_errors(named), _quiet():
        try:
            listing = list_files(named)
        except (HTTPError, OSError) as error:
            item = _from_cache(named, store) if unreachable(error) else None
            if item is None:
                raise
            reporter.warn(f"{named.text}: the hub cannot be reached; the files in the cache were taken, unchecked")
            return item
        if not dry_run:
            _remove_damaged(named, listing, store, reporter)
    absent: dict[str, RemoteFile] = {}
    files = []
    for file in listing.files:
        # Of files with the same content, only the first is transferred.
        missing = file.digest not in absent and store.find(listing.commit, file.path, file.digest) is None
        if missing:
            absent[file.digest] = file
        files.append(File(file.path, file.size, file.size - bytes_there(store, file) if missing else 0))
    path, then = store.snapshot(listing.commit) / named.entry.folder, named.download_command
    item = Item(named.text, _source(named), listing.commit, path, tuple(files), False, then)
    return _Plan(named, item, listing, store, tuple(absent.values()))


def _from_cache(named: Named, store: Store) -> Item | None:
    path = find_cached(named)
    if path is None:
        return None
    inner = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    commit = path.relative_to(store.snapshot("")).parts[0]
    root = store.snapshot(commit)
    files = tuple(File(file.relative_to(root).as_posix(), file.stat().st_size, 0) for file in inner)
    return Item(named.text, _source(named), commit, path, files, False, _then(named, path))


def _remove_damaged(named: Named, listing: Listing, store: Store, reporter: Reporter) -> None:
    """Check the files in the cache and remove those with a wrong checksum, so that they are fetched again."""
    held = [(file, store.find(listing.commit, file.path, file.digest)) for file in listing.files]
    there = [(file, place) for file, place in held if place is not None]
    if not there:
        return
    with reporter.progress(f"{named.text}: checking", sum(file.size for file, _ in there), unit="byte") as bar:
        for file, place in there:
            if place.is_file() and not matches(place, file.digest, bar.advance):
                reporter.warn(f"{named.text}: {file.path} in the cache is damaged and is fetched again")
                for path in (place.resolve(), store.blob(file.digest), store.snapshot(listing.commit) / file.path):
                    path.unlink(missing_ok=True)


def _require_space(plans: Sequence[_Plan]) -> None:
    """Check that the transfers fit onto the disk.

    Raises:
        MachineError: if they do not.
    """
    needed = sum(plan.item.missing for plan in plans)
    if not needed:
        return
    cache = plans[0].store.cache
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MachineError(
            f"the download needs {size_text(needed)} and {cache} has {size_text(free)} free; nothing was fetched",
            hint="make room, or HF_HOME=DIR for another disk",
        )


def _fetch(plan: _Plan, reporter: Reporter) -> Item:
    named, item = plan.named, plan.item
    with hub_errors(named), _quiet():
        if plan.absent:
            with reporter.progress(named.text, sum(file.size for file in plan.absent), unit="byte") as bar:
                transfer(named, plan.listing.commit, plan.absent, plan.store, bar)
        # Every content is in the cache by now, and its checksum was compared in this call.
        digests = {file.path: file.digest for file in plan.listing.files}
        link_files(plan.store, plan.listing.commit, named.revision, digests)
    return replace(item, checked=True, then=_then(named, item.path))


def _then(named: Named, path: Path) -> str:
    """Return the next command to run; adapters are recognised by the files in their folders."""
    adapters = sorted(file.parent for file in path.rglob("adapter_config.json")) if path.is_dir() else []
    if not adapters or (path / "config.json").is_file():
        return named.entry.then
    bases = {folder: read_object(folder / "adapter_config.json").get("base_model_name_or_path") for folder in adapters}
    known = {entry.repo: key for key, entry in CATALOG.items() if entry.kind == "model"}
    # One that starts from a published base can be merged now; those of OPD start from such a merged model.
    first = next((folder for folder in adapters if bases[folder] in known), adapters[0])
    base = known.get(str(bases[first]), "MERGED_SFT_MODEL")
    return shlex.join(["pipo", "merge", str(first), "--base", base])


def _source(named: Named) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'' if named.entry.kind == 'model' else 'datasets/'}{named.entry.repo}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide huggingface_hub's warnings: those that matter become errors or warnings of pipo."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
