"""What a stage made, by content, and what has become of it since.

When a stage is done, `stage.json` records (size, modification time in ns, hash) of every file in its folder. A file
whose size and time are as recorded is not read again, see `FingerprintCache`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipo_core.errors import MissingInputError
from pipo_core.files import DAMAGED, remove_folder
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.pipeline.records import RECORD, stage_record
from pipo_core.train.checkpoints import file_prints
from pipo_core.train.layout import CHECKPOINTS, JOB, RESULT, WORKER_LOG

Prints = dict[str, tuple[int, int, str]]

_LOGS = frozenset({"log.txt", "events.jsonl", "recipe.yaml", WORKER_LOG, JOB})
"""Files that nothing is made from once a stage is done."""
_MODELS = ("model", "adapter")
_LEVELS = 4
"""How many folders above an input its stage's record may lie."""


@dataclass(frozen=True)
class Damage:
    """A file of a finished stage that is no longer what the stage made.

    Attributes:
        name: relative to the stage's folder.
        what: what has become of it.
    """

    name: str
    what: Literal["is gone", "was changed"]

    @property
    def matters(self) -> bool:
        """Whether something is made from the file: not from logs, plots, and checkpoints of a finished training."""
        return self.name not in _LOGS and not self.name.startswith(f"{CHECKPOINTS}/") and not self.name.endswith(".png")

    def __str__(self) -> str:
        return f"{self.name} {self.what} since it was made"


def prints_of(folder: Path, cache: FingerprintCache) -> Prints:
    """Return (size, mtime_ns, hash) of every file in a stage's folder, by relative name.

    Hidden files and the record are left out. Files of checkpoints are not read: their markers have their hashes.
    """
    known = file_prints(folder / CHECKPOINTS)
    found: Prints = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in name.parts) or name.as_posix() == RECORD:
            continue
        stat = file.stat()
        if file in known:
            found[name.as_posix()] = (stat.st_size, stat.st_mtime_ns, known[file])
        else:
            found[name.as_posix()] = (stat.st_size, stat.st_mtime_ns, cache.of_file(file.absolute()))
    return found


def recorded_prints(folder: Path, record: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return (size, mtime_ns, hash) by absolute path, as a stage's record has them; empty for older records."""
    return {str(folder.absolute() / name): entry for name, entry in (record.get("prints") or {}).items()}


def damage_of(folder: Path, record: Mapping[str, Any], cache: FingerprintCache) -> list[Damage]:
    """Return the files of a finished stage that are no longer what it made.

    Records of older versions name the outputs alone, so only their absence is found.

    Args:
        folder: the stage's.
        record: of the finished stage.
        cache: knows files that need not be read again.
    """
    prints = record.get("prints")
    if prints is None:
        return [Damage(name, "is gone") for name in record["outputs"] if not (folder / name).exists()]
    return list(_compared(prints.items(), folder, cache))


def refuse_damaged_input(key: str, path: Path, cache: FingerprintCache) -> None:
    """Raise if an input is an output of a finished stage and is no longer what that stage made.

    Args:
        key: the recipe's key that names the input.
        path: the input, a file or folder.
        cache: knows files that need not be read again.

    Raises:
        MissingInputError: naming the file and the stage.
    """
    path = path.absolute()
    for folder in [path, *path.parents][: _LEVELS + 1]:
        if (folder / RECORD).is_file():
            break
    else:
        return
    record = stage_record(folder)
    inside = path.relative_to(folder)
    prints = {name: entry for name, entry in (record.get("prints") or {}).items() if Path(name).is_relative_to(inside)}
    cache.remember(recorded_prints(folder, record))
    for damage in _compared(prints.items(), folder, cache):
        if damage.matters or path.is_file():
            raise MissingInputError(
                f"{key}: {folder / damage.name} {damage.what} since the stage in {folder} made it",
                hint="give that stage's command again, which makes it good; or copy the input to another folder "
                "to use it as it is",
            )


def minor_damage(folder: Path, damaged: Iterable[Damage]) -> list[Damage]:
    """Return the damage that does not matter; a checkpoint that is gone as a whole is one of it.

    Args:
        folder: the stage's.
        damaged: its damage.
    """
    minor: dict[str, Damage] = {}
    for damage in damaged:
        if not damage.matters:
            parent = damage.name.rpartition("/")[0]
            whole = parent if damage.name.startswith(f"{CHECKPOINTS}/") and not (folder / parent).exists() else ""
            name = "/".join(whole.split("/")[:2]) or damage.name
            minor.setdefault(name, Damage(name, damage.what))
    return list(minor.values())


def set_damaged_aside(folder: Path, damaged: Iterable[Damage]) -> list[str]:
    """Rename what is damaged, so that the job makes it again, and return the new names.

    A model is set aside as a whole. The job's own logs stay: it leaves damaged lines out. A training's result is set
    aside with whatever is damaged, for while it is there the training counts as finished.
    """
    matter = [damage for damage in damaged if damage.matters]
    if not matter:
        return []
    names = {
        next((model for model in _MODELS if damage.name.startswith(f"{model}/")), damage.name)
        for damage in matter
        if not damage.name.endswith(".jsonl")
    }
    moved = []
    for name in sorted(names | {RESULT}):
        path, aside = folder / name, folder / f"{name}{DAMAGED}"
        if not path.exists():
            continue
        if aside.is_dir():
            remove_folder(aside)
        path.rename(aside)
        moved.append(aside.name)
    return moved


def _compared(prints: Iterable[tuple[str, Sequence[Any]]], folder: Path, cache: FingerprintCache) -> Iterable[Damage]:
    for name, (size, mtime_ns, digest) in prints:
        path = folder.absolute() / name
        try:
            stat = path.stat()
        except OSError:
            yield Damage(name, "is gone")
            continue
        if (stat.st_size, stat.st_mtime_ns) != (size, mtime_ns) and cache.of_file(path) != digest:
            yield Damage(name, "was changed")
