"""Fingerprints of a stage's input artifacts: by content, read once.

A file's fingerprint is the hash of its whole content. Because a checkpoint can be many gigabytes, each stage
remembers (size, modification time in ns, hash) of the files it read, and a file whose size and time are as
remembered is not read again. An edit that keeps both is not noticed; nothing but setting the time back does
that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files import file_fingerprint, fingerprint

# What a stage keeps for itself: no artifact, and different from run to run though the artifacts are the same.
BOOKKEEPING = frozenset({"stage.json", "recipe.yaml", "log.txt", "events.jsonl", ".lock", "checkpoints"})


@dataclass
class FingerprintCache:
    """Content hashes of files by absolute path, valid while size and modification time are as remembered."""

    known: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def remember(self, files: Mapping[str, Any]) -> None:
        """Take over entries `path -> [size, mtime_ns, hash]` as a stage recorded them."""
        for path, entry in files.items():
            size, mtime_ns, digest = entry
            self.known[path] = (int(size), int(mtime_ns), str(digest))

    def of_file(self, path: Path) -> str:
        """Return the content hash of one file; read it only if size or time changed."""
        stat = path.stat()
        key = str(path)
        entry = self.known.get(key)
        if entry is None or entry[:2] != (stat.st_size, stat.st_mtime_ns):
            entry = (stat.st_size, stat.st_mtime_ns, file_fingerprint(path))
            self.known[key] = entry
        return entry[2]

    def of_artifact(self, path: Path) -> "ArtifactPrint":
        """Return the fingerprint of a file, or of a folder: its relative names and contents.

        The bookkeeping of a stage folder is left out. Raises MissingInputError when nothing is there.
        """
        path = path.absolute()
        if not path.exists():
            raise MissingInputError(f"{path} does not exist")
        files: dict[str, tuple[int, int, str]] = {}
        contents: dict[str, str] = {}
        for file in _files(path):
            digest = self.of_file(file)
            files[str(file)] = self.known[str(file)]
            contents[file.relative_to(path).as_posix()] = digest
        return ArtifactPrint(fingerprint(contents), files)


@dataclass(frozen=True)
class ArtifactPrint:
    """The fingerprint of one input and what was remembered of each of its files."""

    fingerprint: str
    files: dict[str, tuple[int, int, str]]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for entry in sorted(path.iterdir()):
        if entry.name in BOOKKEEPING or entry.name.startswith("."):
            continue
        yield from _files(entry)
