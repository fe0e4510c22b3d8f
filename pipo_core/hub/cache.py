"""Where the Hugging Face cache keeps a repository, and whether it holds all that a name stands for.

The layout is huggingface_hub's: `blobs/` holds contents named by their checksum, and `snapshots/COMMIT/` holds links
to them under the files' own names.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipo_core.files import partial_beside, write_atomic
from pipo_core.recipes.catalog import Entry, Named


@dataclass(frozen=True)
class Store:
    """One repository's folder in the cache.

    The folder need not exist. A `digest` is the checksum of a file's content.
    """

    cache: Path
    folder: str

    def blob(self, digest: str) -> Path:
        """Return the path of a content that is complete."""
        return self.cache / self.folder / "blobs" / digest

    def partial(self, digest: str) -> Path:
        """Return the path of a content during its transfer; `hf cache prune` removes files with this ending."""
        return self.cache / self.folder / "blobs" / f"{digest}.incomplete"

    def lock(self, digest: str) -> Path:
        """Return the path of the lock for the transfer of a content; huggingface_hub takes the same one."""
        return self.cache / ".locks" / self.folder / f"{digest}.lock"

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a commit's files."""
        return self.cache / self.folder / "snapshots" / commit

    def find(self, commit: str, path: str, digest: str) -> Path | None:
        """Return the path of the complete content of a commit's file, or None if it is not in the cache."""
        # On a file system without links, the snapshot holds a file of its own and there is no blob.
        places = (self.snapshot(commit) / path, self.blob(digest))
        return next((place for place in places if place.is_file()), None)


def open_store(entry: Entry) -> Store:
    """Return the repository's folder in the cache that HF_HOME or HF_HUB_CACHE names."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    return Store(cache, repo_folder_name(repo_id=entry.repo, repo_type=repo_type(entry)))


def repo_type(entry: Entry) -> Literal["model", "dataset"]:
    """Return the hub's word for the kind of repository."""
    return "model" if entry.kind == "model" else "dataset"


def patterns(entry: Entry) -> list[str] | None:
    """Return patterns of the files to fetch from a repository, or None for all of them.

    Pickled weights are never loaded, so they are not fetched.
    """
    if entry.kind == "model":
        safe = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "README*")
        return [f"{entry.path}/{pattern}" if entry.path else pattern for pattern in safe]
    return [entry.path] if entry.path else None


def link_files(store: Store, commit: str, revision: str | None, digests: Mapping[str, str]) -> Path:
    """Give complete contents their names in a commit's snapshot, and remember which commit the revision means.

    Args:
        store: the repository's folder.
        commit: the commit.
        revision: the branch or tag that was asked for; None for the main one.
        digests: the checksum of each file by its name; the names stay inside the snapshot.

    Returns:
        The snapshot's folder.

    Raises:
        OSError: if the cache cannot be written.
    """
    snapshot = store.snapshot(commit)
    for name, digest in digests.items():
        path, blob = snapshot / name, store.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(snapshot.resolve()):
            raise OSError(errno.ELOOP, "a folder of the snapshot leads out of it", str(path.parent))
        if path.is_file():
            continue
        made = partial_beside(path)
        try:
            made.symlink_to(os.path.relpath(blob, path.parent.resolve()))
        except OSError:  # a file system without links
            shutil.copyfile(blob, made)
        made.replace(path)
    if revision != commit:
        write_atomic(store.cache / store.folder / "refs" / (revision or "main"), commit)
    return snapshot


def find_cached(named: Named) -> Path | None:
    """Return the path in the cache for a name on the hub, or None if files are absent or incomplete.

    The hub is not asked: a branch stands for the commit of its last download.
    """
    # Imported here: it takes half a second, and recipes without hub ids do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    entry = named.entry
    try:
        folder = snapshot_download(
            entry.repo,
            repo_type=repo_type(entry),
            revision=named.revision,
            allow_patterns=patterns(entry),
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, IsADirectoryError):  # the second: `refs` of `refs/pr/1`
        return None
    path = Path(folder) / entry.folder
    return path if path.exists() and not missing_files(path, is_model=entry.kind == "model") else None


def missing_files(path: Path, *, is_model: bool) -> list[str]:
    """Return what is missing from a folder or file of the hub, as far as its own files tell.

    A model needs weights, every shard that an index names, and a configuration in each folder with weights. A data
    file must not be empty, and of data that is split into numbered files none may be missing.
    """
    if not is_model:
        if path.is_dir():
            return _missing_parts(path)
        return [] if path.stat().st_size else [f"content of {path.name}"]
    weights = [file for file in path.rglob("*.safetensors") if file.is_file()]
    if not weights:
        return ["weights (*.safetensors)"]
    absent = []
    for folder in sorted({file.parent for file in weights}):
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            absent.append(f"{(folder / 'config.json').relative_to(path)}")
    for index in path.rglob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            absent.append(f"{index.relative_to(path)} (not readable)")
            continue
        absent += [
            str((index.parent / str(name)).relative_to(path))
            for name in sorted(shards, key=str)
            if not (index.parent / str(name)).is_file()
        ]
    return absent


_NUMBERED = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(\.[a-z]+)")
"""The name of a part of a data set's split, as huggingface's `datasets` writes it."""


def _missing_parts(folder: Path) -> list[str]:
    """Return the names of the numbered files that are missing beside others of their split."""
    names = {file.name for file in folder.iterdir()}
    splits = {(found[1], found[3], found[4]) for found in map(_NUMBERED.fullmatch, names) if found}
    wanted = [f"{split}-{i:05}-of-{count}{end}" for split, count, end in sorted(splits) for i in range(int(count))]
    return [name for name in wanted if name not in names]
