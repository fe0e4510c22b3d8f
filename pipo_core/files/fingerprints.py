"""Short hashes of settings, files and folders, to tell whether they are the same as before."""

import hashlib
import json
from pathlib import Path

from pipo_core.errors import MissingInputError

_HEX_DIGITS = 16


def fingerprint(obj: object) -> str:
    """Return a hash of 16 hex digits of an object that JSON can hold; the order of keys does not matter."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def file_fingerprint(path: Path) -> str:
    """Return a hash of 16 hex digits of a file's content, or of a folder's relative names and contents.

    Hidden files and folders (locks, temporary ones) are left out.

    Raises:
        MissingInputError: if `path` is absent.
    """
    if path.is_file():
        return _sha256(path)[:_HEX_DIGITS]
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such file or folder")
    files = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    visible = sorted((name.as_posix(), file) for name, file in files.items() if not _is_hidden(name))
    return fingerprint([[name, _sha256(file)] for name, file in visible])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
