"""What a repository holds: its files with sizes and checksums, as the hub lists them."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from pipo_core.errors import MissingInputError
from pipo_core.hub.cache import patterns, repo_type
from pipo_core.recipes.catalog import Named

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its name there, its size in bytes and the checksum of its content."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """The wanted files of a repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]

    def contents(self) -> dict[str, RemoteFile]:
        """Return the files by checksum: two with the same content count once."""
        return {file.digest: file for file in self.files}


def list_files(named: Named) -> Listing:
    """Return the wanted files of a repository, as the hub lists them now.

    Raises:
        MissingInputError: if the repository lacks the wanted files, or its listing is not safe to use.
        httpx.HTTPError, OSError: huggingface_hub's own errors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    entry, api = named.entry, HfApi()
    kind = repo_type(entry)
    commit = api.repo_info(entry.repo, repo_type=kind, revision=named.revision).sha or ""
    if not _COMMIT.fullmatch(commit):
        raise MissingInputError(f"{named.text}: the hub names no commit of {entry.repo}", hint="check HF_ENDPOINT")
    tree = api.list_repo_tree(entry.repo, repo_type=kind, revision=commit, recursive=True)
    found = [item for item in tree if isinstance(item, RepoFile)]
    wanted = filter_repo_objects(found, allow_patterns=patterns(entry), key=lambda item: item.path)
    files = tuple(RemoteFile(item.path, item.size, item.lfs.sha256 if item.lfs else item.blob_id) for item in wanted)
    for file in files:
        _require_safe(named, file)
    if not files or (entry.kind == "model" and not any(file.path.endswith(".safetensors") for file in files)):
        what = f"has no {entry.path}" if entry.path else "is empty" if entry.kind != "model" else _NO_WEIGHTS
        raise MissingInputError(f"{named.text}: {entry.repo} {what}, at commit {commit[:12]}")
    return Listing(commit, files)


_NO_WEIGHTS = "has no weights in safetensors (pickled ones are not fetched)"


def _require_safe(named: Named, file: RemoteFile) -> None:
    """Check that a file's name stays inside its folder, and that its checksum is one: it names a file, too.

    Raises:
        MissingInputError: if not.
    """
    parts = file.path.replace("\\", "/").split("/")
    anchored = PurePosixPath(file.path).anchor or any(PureWindowsPath(part).anchor for part in parts)
    if ".." in parts or "" in parts or anchored or not _DIGEST.fullmatch(file.digest) or file.size < 0:
        raise MissingInputError(
            f"{named.text}: the hub lists a file that cannot be stored safely, {file.path!r}; nothing was fetched",
            hint="tell the owner of the repository, or check HF_ENDPOINT",
        )
