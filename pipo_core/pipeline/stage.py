"""One stage: a recipe and its input artifacts make an output folder, once.

`outputs/<run>/<stage>/` holds the artifacts and `stage.json`, which records the settings and inputs that they were made
from. `run_stage` compares the stage's identity (`identity.py`) with that record:

- the same, and finished: nothing is done;
- the same, but interrupted, failed or killed: the job is called again and resumes;
- changed: the change is reported, the folder becomes `<stage>.previous`, and the stage runs from the start.

`<stage>.previous` replaces the one before it, so that one earlier result is kept and the disk does not fill up. Results
that took hours (`COSTLY`) are never replaced: an earlier `<stage>.previous` becomes `<stage>.previous.1`, and so on. A
training starts again only on request; otherwise `ChangedError` is raised.
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

# Files that took hours to make, by kind: a folder with one of them is never replaced. Other kinds are cheap to repeat.
COSTLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "distill"), ("model", "adapter", "checkpoints/*/complete.json")),
    "rollout": ("rollouts.jsonl",),
}
TRAININGS = ("train", "distill")
"""Kinds that start again only on request."""
_WORKERS_PATIENCE_SECONDS = 600.0

Action = Literal["skip", "start", "go on", "start again", "refuse"]


class ChangedError(UsageError):
    """Another training is in the folder that this one would use; `problems` holds one phrase for each change."""

    def __init__(self, folder: Path, changes: list[str]) -> None:
        """Keep the changes.

        Args:
            folder: the folder of the training.
            changes: a phrase for each setting and input that differs from the training in there.
        """
        self.problems = changes
        super().__init__(
            "\n".join([f"{folder} holds another training:", *(f"  {change}" for change in changes)]),
            hint=f"add --restart to start again (the old training becomes {folder.name}{PREVIOUS}), "
            "or run=NAME to train in another folder",
        )


@dataclass(frozen=True)
class StageResult:
    """The outcome of a stage.

    Attributes:
        folder: its folder.
        kind: its recipe's kind.
        summary: the job's summary.
        skipped: whether it was finished already.
        seconds: the time that the job took, over all calls that it took.
    """

    folder: Path
    kind: str
    summary: dict[str, Any]
    skipped: bool
    seconds: float


@dataclass(frozen=True)
class StageStatus:
    """What `run_stage` would do with a stage, and why.

    Attributes:
        folder: the stage's folder.
        action: `refuse` means that it would raise `ChangedError`: a training would have to start again without a
            request for that.
        reasons: one phrase for each change, or for the state that the stage was left in.
        inputs: the recipe's inputs.
        identity: the stage's identity.
        files: (size, mtime_ns, hash) of the inputs' files by path.
        settings: the recipe in its JSON form.
        earlier: the record of an earlier call; None if there is none.
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
    """Return `root/<run>/<stage>`; a stage without a name has the name of its kind."""
    return root / recipe.run / (name or recipe.kind)


def check_stage(
    recipe: JobKind,
    root: Path,
    *,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    restart: bool = False,
) -> StageStatus:
    """Return what `run_stage` would do with a stage, without changing anything.

    Args:
        recipe: as in `run_stage`.
        root: as in `run_stage`.
        name: as in `run_stage`.
        inputs: as in `run_stage`.
        restart: as in `run_stage`.

    Raises:
        MissingInputError: if an input is absent, unfinished, or not of the form that its key needs.
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
    """Run one stage, or what is left of it, and return its outcome; do nothing if it is finished and unchanged.

    If the job raises, the state is on disk before the error is passed on.

    Args:
        recipe: the stage's recipe.
        root: the folder of all runs.
        reporter: shows messages and progress.
        name: the stage's name; that of its kind if None.
        inputs: folders of earlier stages by name, for `stage:NAME` in the recipe.
        restart: whether a training in the folder that differs from this one is set aside.
        jobs: the job of each recipe kind.

    Raises:
        MissingInputError: if an input is absent, unfinished, or not of the form that its key needs.
        ChangedError: if the folder holds another training and `restart` is False.
        UsageError: if another process works in the stage, or the name is not allowed.
        MachineError: if the disk is full.
        Exception: any other error of the job.
    """
    folder = stage_folder(recipe, root, name)
    if PREVIOUS in folder.name:
        raise UsageError(f"{folder.name!r}: a stage's name may not contain {PREVIOUS}")
    # Inputs are looked for first: if one is absent, nothing is left on disk, not even a lock.
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
            reporter.info(f"{folder.name}: runs again, because {'; '.join(todo.reasons)}; the old result is now {kept}")
        elif todo.action == "go on":
            reporter.info(f"{folder.name}: goes on ({'; '.join(todo.reasons)})")
        return _work(recipe, todo, jobs[recipe.kind], reporter)


def _outlast_workers(folder: Path, reporter: Reporter) -> None:
    """Wait for worker processes of a killed run: they write into `folder` until they end by themselves.

    Raises:
        UsageError: if they have not ended after `_WORKERS_PATIENCE_SECONDS`.
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
    """Run the job of a stage and keep its record, whatever becomes of it.

    The record says ``running``, then ``done``, ``failed`` or ``interrupted``. Where the job goes on, attempts and
    seconds are added to those of before, and the job gets the fingerprint that it began with.
    """
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
    # The record is written first: a folder with files but no record would not be recognised as this stage's.
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
        with suppress(OSError, PipoError):  # the disk may be full; the record then stays at "running"
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
    """Rename a stage's folder to make room for a new one and return its new name."""
    previous = folder.with_name(folder.name + PREVIOUS)
    if _is_costly(previous, kind):
        taken = (previous.with_name(f"{previous.name}.{number}") for number in count(1))
        previous.rename(next(path for path in taken if not path.exists()))
    elif previous.exists():
        remove_folder(previous)
    folder.rename(previous)
    return previous.name


def _is_costly(folder: Path, kind: str) -> bool:
    """Return whether a stage's folder holds files of `COSTLY`; `kind` applies if the folder's record has none."""
    return any(any(folder.glob(pattern)) for pattern in COSTLY.get(_earlier(folder).get("kind", kind), ()))


def _refresh_files(todo: StageStatus) -> None:
    """Record new times of files with unchanged content, so that they are not read again next time."""
    if todo.earlier is not None and fingerprint(todo.files) != fingerprint(todo.earlier["files"]):
        write_json(todo.folder / RECORD, {**todo.earlier, "files": todo.files})


def _write_recipe(resolved: JobKind, folder: Path) -> None:
    head = f"# The recipe of stage {folder.name}, with every default and path filled in.\n"
    write_atomic(folder / "recipe.yaml", head + to_yaml(dump(resolved)))
