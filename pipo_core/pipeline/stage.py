"""One stage: a recipe and its input artifacts make an output folder, once.

`outputs/<run>/<stage>/` holds the artifacts and `stage.json`, which records the settings and inputs that they were made
from. `run_stage` compares the stage's identity (`identity.py`) with that record:

- the same, and finished: nothing is done;
- the same, but interrupted, failed or killed: the job is called again and resumes;
- the same, and finished, but an output is damaged or gone (`outputs.py`): it is named and set aside, and the job is
  called again and makes it anew;
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
from typing import Any

from pipo_core.errors import Interrupted, PipoError, UsageError
from pipo_core.files import (
    DAMAGED,
    FolderLock,
    fingerprint,
    full_disk,
    lock_of,
    remove_folder,
    remove_partial,
    workers_lock_of,
    write_atomic,
    writing,
)
from pipo_core.machine import machine, peak_memory, versions
from pipo_core.pipeline.fingerprints import BOOKKEEPING, FingerprintCache
from pipo_core.pipeline.identity import recorded_fingerprint
from pipo_core.pipeline.inputs import find_inputs, put_inputs
from pipo_core.pipeline.jobs import JOBS, Job
from pipo_core.pipeline.journal import JournalReporter, now
from pipo_core.pipeline.outputs import (
    minor_damage,
    prints_of,
    recorded_prints,
    set_damaged_aside,
)
from pipo_core.pipeline.records import RECORD, is_twofold, record_is_damaged, write_stage_record
from pipo_core.pipeline.status import (
    PREVIOUS,
    ChangedError,
    StageStatus,
    check_stage,
    is_costly,
    paths_of,
    stage_folder,
)
from pipo_core.recipes.base import dump
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.write import to_yaml
from pipo_core.reporting import Reporter

RECIPE = "recipe.yaml"
_WORKERS_PATIENCE_SECONDS = 600.0


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
    find_inputs(recipe.kind, recipe.model_dump(mode="json"), paths_of(inputs))
    with writing(folder), FolderLock(lock_of(folder), about=folder):
        _outlast_workers(folder, reporter)
        todo = check_stage(recipe, root, name=name, inputs=inputs, restart=restart)
        if record_is_damaged(folder):
            reporter.warn(f"{folder / RECORD} is damaged or gone; its copy takes its place")
        if todo.action == "skip" and todo.earlier is not None:
            remove_partial(folder, deep=False)  # of a run that was killed while it wrote the record's copy
            _refresh_record(todo, resolved_recipe(recipe, todo), reporter)
            reporter.info(f"{folder.name}: finished already, nothing has changed")
            return StageResult(folder, recipe.kind, todo.earlier["summary"], True, todo.earlier.get("seconds", 0.0))
        if todo.action == "refuse":
            raise ChangedError(folder, todo.reasons, damaged=bool(todo.damaged))
        remove_partial(folder)
        if todo.action == "start again":
            kept = _set_aside(folder, recipe.kind)
            reporter.info(f"{folder.name}: runs again, because {'; '.join(todo.reasons)}; the old result is now {kept}")
        elif todo.action == "go on":
            moved = set_damaged_aside(folder, todo.damaged)
            for damage in minor_damage(folder, todo.damaged):
                reporter.warn(f"{folder / damage.name} {damage.what} since it was made")
            kept = f"; what was there is now {', '.join(moved)}" if moved else ""
            (reporter.warn if todo.damaged else reporter.info)(
                f"{folder.name}: goes on ({'; '.join(todo.reasons)}){kept}"
            )
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
    resolved = resolved_recipe(recipe, todo)
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
        "prints": None,
    }
    # The record is written first: a folder with files but no record would not be recognised as this stage's.
    write_stage_record(folder, record)
    _write_recipe(resolved, folder)
    journal.note("running", attempt=record["attempts"], command=record["command"])
    if goes_on and earlier.get("versions") != record["versions"]:
        journal.warn(f"{folder.name}: goes on with other versions than it began with; see {RECORD}")
    before, began = record["seconds"], time.monotonic()

    def close(state: str, **fields: Any) -> None:
        record.update(state=state, finished=now(), **fields)
        record["seconds"] = round(before + time.monotonic() - began, 3)
        record["peak_memory_gib"] = peak_memory()
        write_stage_record(folder, record)

    try:
        with journal.waiting_until_heard(f"{folder.name}: loading what {recipe.kind} needs"):
            summary = job(resolved, folder, journal, made_by)
        journal.note("done")
        close("done", summary=summary, outputs=_outputs(folder), prints=prints_of(folder, FingerprintCache()))
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt | Interrupted) else "failed"
        full = full_disk(error, folder)
        message = str(full or error) or type(error).__name__
        with suppress(OSError, PipoError):  # the disk may be full; the record then stays at "running"
            close(state, message=message, summary=None)
            journal.note(state, message=message)
            journal.log("traceback", message=traceback.format_exc())
        raise
    return StageResult(folder, recipe.kind, summary, False, record["seconds"])


def resolved_recipe(recipe: JobKind, todo: StageStatus) -> JobKind:
    """Return a stage's recipe with the paths of its inputs."""
    paths = {item.key: str(item.path) for item in todo.inputs}
    return type(recipe).model_validate(put_inputs(todo.settings, paths))


def _outputs(folder: Path) -> list[str]:
    names = [entry.name for entry in folder.iterdir()]
    return sorted(
        name for name in names if name not in BOOKKEEPING and not name.startswith(".") and DAMAGED not in name
    )


def _set_aside(folder: Path, kind: str) -> str:
    """Rename a stage's folder to make room for a new one and return its new name."""
    previous = folder.with_name(folder.name + PREVIOUS)
    if is_costly(previous, kind):
        taken = (previous.with_name(f"{previous.name}.{number}") for number in count(1))
        previous.rename(next(path for path in taken if not path.exists()))
    elif previous.exists():
        remove_folder(previous)
    folder.rename(previous)
    return previous.name


def _refresh_record(todo: StageStatus, resolved: JobKind, reporter: Reporter) -> None:
    """Name damage that does not matter, and record what is there now, so that it is neither read nor named again."""
    folder, earlier = todo.folder, dict(todo.earlier or {})
    for damage in minor_damage(folder, todo.damaged):
        mended = damage.name == RECIPE
        if mended:
            _write_recipe(resolved, folder)
        reporter.warn(
            f"{folder / damage.name} {damage.what} since it was made{'; it is written again' if mended else ''}"
        )
    if earlier.get("prints") is not None:
        earlier["prints"] = prints_of(folder, _knowing(recorded_prints(folder, earlier)))
    earlier["files"] = todo.files
    if not is_twofold(folder) or fingerprint(earlier) != fingerprint(todo.earlier):
        write_stage_record(folder, earlier)


def _knowing(files: Mapping[str, Any]) -> FingerprintCache:
    cache = FingerprintCache()
    cache.remember(files)
    return cache


def _write_recipe(resolved: JobKind, folder: Path) -> None:
    head = f"# The recipe of stage {folder.name}, with every default and path filled in.\n"
    write_atomic(folder / RECIPE, head + to_yaml(dump(resolved)))
