"""One stage: a recipe and its input artifacts make an output folder, once.

`outputs/<run>/<stage>/` holds the artifacts and `stage.json`, which says what they were made from. From it
`run_stage` decides:

- finished, and recipe and inputs are the same: nothing is done;
- interrupted, failed or killed, and the same: the job is called again and goes on from what it left;
- something is different: it is said, the folder becomes `<stage>.previous` (replacing the one before, so that
  one earlier result is kept and the disk does not fill up), and the stage runs from the start.

What took hours (`COSTLY`) is never replaced: an earlier `<stage>.previous` becomes `<stage>.previous.1`, and so
on; and where a training would start again, that must be asked for, else it is refused.

What "the same" means is decided in `identity`.
"""

import shlex
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pipo_core.errors import Interrupted, MissingInputError, PipoError, UsageError
from pipo_core.files import (
    FolderLock,
    fingerprint,
    full_disk,
    lock_of,
    read_object,
    remove_folder,
    remove_partial,
    workers_lock_of,
    write_atomic,
    write_json,
    writing,
)
from pipo_core.machine import machine, peak_memory, versions
from pipo_core.pipeline.fingerprints import BOOKKEEPING, FingerprintCache
from pipo_core.pipeline.identity import Identity, changes, identity_of, recorded_fingerprint
from pipo_core.pipeline.inputs import Input, find_inputs, put_inputs
from pipo_core.pipeline.jobs import JOBS, Job
from pipo_core.pipeline.journal import JournalReporter, now
from pipo_core.recipes.base import dump
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.write import to_yaml
from pipo_core.reporting import Reporter

RECORD = "stage.json"
PREVIOUS = ".previous"
_NEEDED = {"state", "message", "settings", "inputs", "files", "summary", "outputs"}

# What hours of work leave, by kind: where one of these lies, the folder is kept for good. Other kinds are cheap.
COSTLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "distill"), ("model", "adapter", "checkpoints/*/complete.json")),
    "rollout": ("rollouts.jsonl",),
}
TRAININGS = ("train", "distill")
"""Kinds that start again only when asked to."""
_WORKERS_PATIENCE_SECONDS = 600.0

Action = Literal["skip", "start", "go on", "start again", "refuse"]


class ChangedError(UsageError):
    """A training lies where another one would be made; `problems` holds what changed, one phrase each."""

    def __init__(self, folder: Path, changes: list[str]) -> None:
        """Keep the `changes` between what `folder` was made from and what it would be made from."""
        self.problems = changes
        super().__init__(
            "\n".join([f"{folder} holds another training:", *(f"  {change}" for change in changes)]),
            hint=f"the same with --restart starts again (what is there becomes {folder.name}{PREVIOUS}), "
            "with run=NAME it trains in another folder",
        )


@dataclass(frozen=True)
class StageResult:
    """What a stage left: its folder and its job's summary.

    `skipped`: it was finished already. `seconds` is what making it took, in whichever call that was.
    """

    folder: Path
    kind: str
    summary: dict[str, Any]
    skipped: bool
    seconds: float


@dataclass(frozen=True)
class StageStatus:
    """What `run_stage` would do with a stage and why (`reasons`, one change or state each).

    `refuse`: it would raise `ChangedError`, since a training would have to start again and nobody asked for that.
    """

    folder: Path
    action: Action
    reasons: list[str]
    inputs: list[Input]
    identity: Identity
    files: dict[str, tuple[int, int, str]]
    settings: dict[str, Any]
    earlier: dict[str, Any] | None


def stage_folder(recipe: JobKind, root: Path, name: str | None = None) -> Path:
    """Return `root/<run>/<stage>`; a stage without a name is called after its kind."""
    return root / recipe.run / (name or recipe.kind)


def check_stage(
    recipe: JobKind,
    root: Path,
    *,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    restart: bool = False,
) -> StageStatus:
    """Return what there is to do for a stage, changing nothing; the arguments are `run_stage`'s.

    Raises MissingInputError when an input is absent, unfinished or unfit.
    """
    folder = stage_folder(recipe, root, name)
    settings = recipe.model_dump(mode="json")
    found = find_inputs(recipe.kind, settings, _paths(inputs))
    cache = FingerprintCache()
    for record in sorted(folder.parent.glob(f"*/{RECORD}")):
        cache.remember(_earlier(record.parent).get("files", {}))
    artifacts = {item.key: cache.of_artifact(item.path) for item in found}
    identity = identity_of(recipe, {key: artifact.fingerprint for key, artifact in artifacts.items()})
    files = {path: entry for artifact in artifacts.values() for path, entry in artifact.files.items()}
    earlier = _earlier(folder) or None
    action, reasons = _decide(recipe, folder, identity, earlier)
    if action == "start again" and recipe.kind in TRAININGS and not restart and _is_costly(folder, recipe.kind):
        action = "refuse"
    return StageStatus(folder, action, reasons, found, identity, files, settings, earlier)


def run_stage(
    recipe: JobKind,
    root: Path,
    *,
    reporter: Reporter,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    restart: bool = False,
    jobs: Mapping[str, Job] = JOBS,
) -> StageResult:
    """Bring one stage to its end and return what it left; do nothing if it is there already.

    `inputs` are the folders of earlier stages by name, for `stage:NAME` paths in the recipe. `restart`: a
    training that is there and was made from something else is set aside. `jobs` are the functions by recipe
    kind. Raises MissingInputError for absent inputs, ChangedError for such a training without `restart`,
    UsageError when another process works in the stage or its name is not possible, MachineError when the disk
    is full, and whatever the job raises; the state is on disk before that leaves.
    """
    folder = stage_folder(recipe, root, name)
    if PREVIOUS in folder.name:
        raise UsageError(f"{folder.name!r}: a stage's name may not hold {PREVIOUS}")
    # First of all, so that a start that cannot succeed leaves nothing behind, not even a lock.
    find_inputs(recipe.kind, recipe.model_dump(mode="json"), _paths(inputs))
    with writing(folder), FolderLock(lock_of(folder), about=folder):
        _outlast_workers(folder, reporter)
        todo = check_stage(recipe, root, name=name, inputs=inputs, restart=restart)
        if todo.action == "skip" and todo.earlier is not None:
            _refresh_files(todo)
            reporter.info(f"{folder.name}: finished already, nothing has changed")
            return StageResult(folder, recipe.kind, todo.earlier["summary"], True, todo.earlier.get("seconds", 0.0))
        if todo.action == "refuse":
            raise ChangedError(folder, todo.reasons)
        remove_partial(folder)
        if todo.action == "start again":
            kept = _set_aside(folder, recipe.kind)
            reporter.info(f"{folder.name}: runs again, because {'; '.join(todo.reasons)}; what was there is now {kept}")
        elif todo.action == "go on":
            reporter.info(f"{folder.name}: goes on ({'; '.join(todo.reasons)})")
        return _work(recipe, todo, jobs[recipe.kind], reporter)


def _outlast_workers(folder: Path, reporter: Reporter) -> None:
    """Wait for processes that a killed run left behind: they end by themselves, and till then write into `folder`.

    Raises UsageError if they do not end in ten minutes.
    """
    lock = workers_lock_of(folder)
    if not lock.exists():
        return
    try:
        with FolderLock(lock):
            return
    except UsageError:
        reporter.info(f"{folder.name}: waits for a process that a killed run left behind to end")
    with FolderLock(lock, patience=_WORKERS_PATIENCE_SECONDS, about=folder):
        return


def _work(recipe: JobKind, todo: StageStatus, job: Job, reporter: Reporter) -> StageResult:
    folder = todo.folder
    folder.mkdir(parents=True, exist_ok=True)
    goes_on = todo.action == "go on" and todo.earlier is not None
    earlier = todo.earlier if goes_on and todo.earlier is not None else {}
    resolved = type(recipe).model_validate(
        put_inputs(todo.settings, {item.key: str(item.path) for item in todo.inputs})
    )
    made_by = (recorded_fingerprint(earlier, folder) if goes_on else None) or todo.identity.fingerprint
    journal = JournalReporter(reporter, folder)
    record: dict[str, Any] = {
        "kind": recipe.kind,
        "name": folder.name,
        "state": "running",
        "message": None,
        "made_by": made_by,
        "settings": todo.settings,
        "inputs": {
            item.key: {"value": item.value, "path": str(item.path), "fingerprint": todo.identity.prints[item.key]}
            for item in todo.inputs
        },
        "files": todo.files,
        "versions": versions(),
        "machine": machine(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "attempts": earlier.get("attempts", 0) + 1,
        "started": earlier.get("started", now()),
        "finished": None,
        "seconds": earlier.get("seconds", 0.0),
        "peak_memory_gib": None,
        "summary": None,
        "outputs": None,
    }
    # First of all: a folder with anything else in it and no record would be taken for a stranger's.
    write_json(folder / RECORD, record)
    _write_recipe(resolved, folder)
    journal.note("running", attempt=record["attempts"], command=record["command"])
    if goes_on and earlier.get("versions") != record["versions"]:
        journal.warn(f"{folder.name}: goes on with other versions than it began with; see {RECORD}")
    before, began = record["seconds"], time.monotonic()

    def close(state: str, **fields: Any) -> None:
        record.update(state=state, finished=now(), **fields)
        record["seconds"] = round(before + time.monotonic() - began, 3)
        record["peak_memory_gib"] = peak_memory()
        write_json(folder / RECORD, record)

    try:
        summary = job(resolved, folder, journal, made_by)
        close("done", summary=summary, outputs=_outputs(folder))
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt | Interrupted) else "failed"
        full = full_disk(error, folder)
        message = str(full or error) or type(error).__name__
        with suppress(OSError, PipoError):  # the disk may be full; the record then says what it said: running
            close(state, message=message, summary=None)
            journal.note(state, message=message)
            journal.log("traceback", message=traceback.format_exc())
        raise
    journal.note("done", seconds=record["seconds"])
    return StageResult(folder, recipe.kind, summary, False, record["seconds"])


def _decide(
    recipe: JobKind, folder: Path, identity: Identity, earlier: Mapping[str, Any] | None
) -> tuple[Action, list[str]]:
    if earlier is None:
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return "start again", [f"{folder} holds no readable {RECORD}"]
        return "start", []
    changed = changes(recipe, identity, earlier)
    if changed:
        return "start again", changed
    state = earlier["state"]
    if state == "done":
        lost = [name for name in earlier["outputs"] if not (folder / name).exists()]
        return ("go on", [f"{name} is gone" for name in lost]) if lost else ("skip", [])
    if state == "running":
        return "go on", ["it was killed while running"]
    if state == "interrupted":
        return "go on", ["it was interrupted"]
    return "go on", [f"it failed: {earlier['message'].splitlines()[0]}"]


def _paths(folders: Mapping[str, str] | None) -> dict[str, Path]:
    return {name: Path(folder) for name, folder in (folders or {}).items()}


def _earlier(folder: Path) -> dict[str, Any]:
    try:
        record = read_object(folder / RECORD)
    except MissingInputError:
        return {}
    return record if record.keys() >= _NEEDED else {}


def _outputs(folder: Path) -> list[str]:
    names = [entry.name for entry in folder.iterdir()]
    return sorted(name for name in names if name not in BOOKKEEPING and not name.startswith("."))


def _set_aside(folder: Path, kind: str) -> str:
    """Move a stage's folder out of the way and return its new name."""
    previous = folder.with_name(folder.name + PREVIOUS)
    if _is_costly(previous, kind):
        taken = (previous.with_name(f"{previous.name}.{number}") for number in count(1))
        previous.rename(next(path for path in taken if not path.exists()))
    elif previous.exists():
        remove_folder(previous)
    folder.rename(previous)
    return previous.name


def _is_costly(folder: Path, kind: str) -> bool:
    """Return whether hours of work may lie in a stage's folder; `kind` is its own unless its record says another."""
    return any(any(folder.glob(pattern)) for pattern in COSTLY.get(_earlier(folder).get("kind", kind), ()))


def _refresh_files(todo: StageStatus) -> None:
    """Remember files that were read anew though their content is the same, so that this happens once."""
    if todo.earlier is not None and fingerprint(todo.files) != fingerprint(todo.earlier["files"]):
        write_json(todo.folder / RECORD, {**todo.earlier, "files": todo.files})


def _write_recipe(resolved: JobKind, folder: Path) -> None:
    head = f"# What stage {folder.name} runs, with every default and path filled in.\n"
    write_atomic(folder / "recipe.yaml", head + to_yaml(dump(resolved)))
