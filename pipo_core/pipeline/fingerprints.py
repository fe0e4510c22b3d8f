"""Fingerprints of a stage's input artifacts, by content.

A file's fingerprint is the hash of its whole content. A checkpoint can be many gigabytes, so each stage records (size,
modification time in ns, hash) of the files that it read, and a file with the same size and time is not read again. An
edit that keeps both is not noticed; that takes setting the time back on purpose.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError
from pipo_core.files import file_fingerprint, fingerprint

# Files of a stage that are not artifacts: they differ from run to run even if the artifacts are the same.
BOOKKEEPING = frozenset({"stage.json", "recipe.yaml", "log.txt", "events.jsonl", ".lock", "checkpoints"})


@dataclass
class FingerprintCache:
    """Content hashes of files by absolute path, valid while size and modification time are as recorded."""

    known: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def remember(self, files: Mapping[str, Any]) -> None:
        """Add the entries `path -> [size, mtime_ns, hash]` that a stage recorded."""
        for path, entry in files.items():
            size, mtime_ns, digest = entry
            self.known[path] = (int(size), int(mtime_ns), str(digest))

    def of_file(self, path: Path) -> str:
        """Return the content hash of a file; the file is read only if its size or time has changed."""
        stat = path.stat()
        key = str(path)
        entry = self.known.get(key)
        if entry is None or entry[:2] != (stat.st_size, stat.st_mtime_ns):
            entry = (stat.st_size, stat.st_mtime_ns, file_fingerprint(path))
            self.known[key] = entry
        return entry[2]

    def of_artifact(self, path: Path) -> "ArtifactPrint":
        """Return the fingerprint of a file, or of a folder: its relative names and contents.

        The files in `BOOKKEEPING` and hidden ones are left out.

        Raises:
            MissingInputError: if nothing is at `path`.
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
    """The fingerprint of one input, and (size, mtime_ns, hash) of each of its files."""

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
