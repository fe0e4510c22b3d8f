"""What a repository holds: its files with sizes and checksums, as the hub lists them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from pipo_core.errors import MissingInputError
from pipo_core.hub.cache import patterns, repo_type
from pipo_core.hub.replies import StrangeReplyError, get_json
from pipo_core.recipes.catalog import Named

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LONGEST_NAME = 200
"""Bytes of a name; file systems take 255, and temporary names are longer."""
_MOST_PAGES = 200
"""Of a listing; a page has up to 1,000 files."""


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
        StrangeReplyError: if the hub's replies are not those of a hub.
        httpx.HTTPError, OSError: huggingface_hub's own errors.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import filter_repo_objects

    entry = named.entry
    about = f"{constants.ENDPOINT}/api/{repo_type(entry)}s/{entry.repo}"
    found, _ = get_json(f"{about}/revision/{quote(named.revision, safe='')}" if named.revision else about)
    commit = found.get("sha") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise MissingInputError(f"{named.text}: the hub names no commit of {entry.repo}", hint="check HF_ENDPOINT")
    listed = list(_listed(f"{about}/tree/{commit}?recursive=true"))
    if len({file.path for file in listed}) < len(listed):
        raise StrangeReplyError("it lists a file twice")
    files = tuple(filter_repo_objects(listed, allow_patterns=patterns(entry), key=lambda file: file.path))
    for file in files:
        _require_safe(named, file)
    if not files or (entry.kind == "model" and not any(file.path.endswith(".safetensors") for file in files)):
        what = f"has no {entry.path}" if entry.path else "is empty" if entry.kind != "model" else _NO_WEIGHTS
        raise MissingInputError(f"{named.text}: {entry.repo} {what}, at commit {commit[:12]}")
    return Listing(commit, files)


_NO_WEIGHTS = "has no weights in safetensors (pickled ones are not fetched)"


def _listed(address: str) -> Iterator[RemoteFile]:
    """Yield the files that a tree's pages list."""
    following: str | None = address
    for _ in range(_MOST_PAGES):
        if following is None:
            return
        page, following = get_json(following)
        if not isinstance(page, list):
            raise StrangeReplyError("a page of its listing is not a list")
        for item in page:
            file = _file(item)
            if file is not None:
                yield file
    if following is not None:
        raise StrangeReplyError(f"its listing has more than {_MOST_PAGES} pages")


def _file(item: Any) -> RemoteFile | None:
    """Return the file that an entry of a listing describes; None for a folder."""
    if not isinstance(item, dict) or item.get("type") not in ("file", "directory"):
        raise StrangeReplyError("an entry of its listing is neither a file nor a folder")
    if item["type"] == "directory":
        return None
    large = item.get("lfs")
    digest = item.get("oid") if large is None else large.get("oid") if isinstance(large, dict) else None
    path, size = item.get("path"), item.get("size")
    if not isinstance(path, str) or type(size) is not int or not isinstance(digest, str):
        raise StrangeReplyError("a file of its listing lacks a name, a size or a checksum")
    return RemoteFile(path, size, digest)


def _require_safe(named: Named, file: RemoteFile) -> None:
    """Check that a file's name stays inside its folder and can be shown, and that its checksum is one: it names a file.

    Raises:
        MissingInputError: if not.
    """
    parts = file.path.replace("\\", "/").split("/")
    anchored = PurePosixPath(file.path).anchor or any(PureWindowsPath(part).anchor for part in parts)
    strange = {"..", ".", ""} & {*parts} or anchored or not file.path.isprintable()
    strange = strange or max(len(part.encode("utf-8", "replace")) for part in parts) > _LONGEST_NAME
    if strange or not _DIGEST.fullmatch(file.digest) or file.size < 0:
        raise MissingInputError(
            f"{named.text}: the hub lists a file that cannot be stored safely, {file.path[:99]!r}; nothing was fetched",
            hint="tell the owner of the repository, or check HF_ENDPOINT",
        )
