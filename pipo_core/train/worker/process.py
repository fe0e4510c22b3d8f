"""The life of a training process: claim standard output, wait for the lock, train, write the artifact, report errors.

It tells the supervisor what happens as one JSON object a line on standard output (see `pipo_core.train.events`);
everything that libraries print goes to standard error.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from pipo_core.errors import MachineError
from pipo_core.files import FolderLock, full_disk, read_json, workers_lock_of
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.train.checkpoints import keep_newest, newest_complete, remove_incomplete, set_checkpoints_aside
from pipo_core.train.events import SMALLER, EventWriter
from pipo_core.train.layout import CHECKPOINTS, STOP_FILE
from pipo_core.train.token_cache import cache_folder
from pipo_core.train.worker.stop import StoppedEarly, StopRequest

_PATIENCE_SECONDS = 60.0

if TYPE_CHECKING:
    from pipo_core.train.worker.session import PairSession


@dataclass(frozen=True)
class Job:
    """What the supervisor asks for.

    Attributes:
        recipe: its paths are real folders and files.
        out: the stage's folder.
        made_by: fingerprint of everything that the weights depend on.
        base: name of the base model, for the checkpoint's configuration.
    """

    recipe: AnyTraining
    out: Path
    made_by: str
    base: str

    @classmethod
    def read(cls, file: Path) -> "Job":
        """Return the job in a file that `supervisor.run_training` wrote."""
        content = read_json(file)
        recipe = KINDS[content["recipe"]["kind"]].model_validate(content["recipe"])
        return cls(cast(AnyTraining, recipe), Path(content["out"]), content["made_by"], content["base"])


def main(job_file: Path) -> int:
    """Run a job and return the exit code.

    Args:
        job_file: in the stage's folder.
    """
    stream = _claim_stdout()
    is_first = int(os.environ.get("RANK", "0")) == 0
    out = job_file.parent
    stop = StopRequest(out / STOP_FILE)
    events = EventWriter(stream if is_first else None, on_lost=stop.ask)
    stop.listen()
    stop.end_with(sys.stdin.fileno())
    try:
        # A killed supervisor leaves this process running for a while, and the next run waits for this lock. If this
        # process gets the lock late, it reads the job that the next supervisor wrote, and is ended by its own closed
        # standard input.
        lock = FolderLock(workers_lock_of(out), patience=_PATIENCE_SECONDS, about=out)
        with lock if is_first else contextlib.nullcontext():
            train(Job.read(job_file), is_first=is_first, events=events, stop=stop)
    except StoppedEarly:
        events.write("stopped", step=None)
    except BaseException as error:  # noqa: BLE001 - the supervisor must learn of every failure
        events.error(full_disk(error, out / CHECKPOINTS) or _explained(error))
        with contextlib.suppress(OSError):  # of a full disk, where the log is too
            traceback.print_exc()
        return 1
    return 0


def train(job: Job, *, is_first: bool, events: EventWriter, stop: StopRequest) -> None:
    """Train in this process and write the artifact, unless asked to stop before.

    Args:
        job: what to train.
        is_first: whether this process, out of all that train together, writes the files.
        events: where progress goes.
        stop: asks for an early end.

    Raises:
        MachineError: if the machine cannot train at this precision.
        PipoError: if data, model or checkpoints are not fit for the training.
    """
    # Imported here: these import torch, whose output must not reach the standard output that `main` claims.
    import torch

    from pipo_core.train.worker import swift_plugin
    from pipo_core.train.worker.artifact import write_artifact
    from pipo_core.train.worker.swift_arguments import swift_arguments

    on_cpu = not torch.cuda.is_available()
    if job.recipe.precision == "bf16" and on_cpu:
        raise MachineError("precision: bf16 needs a GPU, and there is none", hint="give precision=fp32")
    swift_plugin.register()
    checkpoints = job.out / CHECKPOINTS
    if is_first:

        def warn(message: str) -> None:
            events.write("warn", message=message)

        remove_incomplete(checkpoints, warn)
        set_checkpoints_aside(checkpoints, warn)
        keep_newest(checkpoints, job.recipe.save.keep)
    resume_from = newest_complete(checkpoints, job.made_by)
    session = _open_session(
        job,
        swift_arguments(job.recipe, checkpoints, resume_from, on_cpu=on_cpu),
        made_by=job.made_by,
        events=events,
        stop=stop,
    )
    session.main()
    step = session.trainer.state.global_step
    if session.stopped:
        events.write("stopped", step=step)
        return
    weights = session.final_weights()
    if is_first:
        write_artifact(session, weights, job.out, base=job.base)
    dataset = session.trainer.train_dataset
    events.write("done", step=step, rows=len(dataset), dropped=dataset.dropped)


def _open_session(job: Job, arguments: Mapping[str, Any], **common: Any) -> "PairSession":
    """Return the session of the recipe's kind; model, tokenizer and, in distillation, the teacher are loaded."""
    from swift import SftArguments

    from pipo_core.train.worker.opd_session import OpdSession
    from pipo_core.train.worker.sft_session import SftSession

    if isinstance(job.recipe, DistillRecipe):
        return OpdSession(SftArguments(**arguments), job.recipe, job.out, **common)
    return SftSession(
        SftArguments(**arguments), job.recipe, cache=cache_folder(job.recipe.data.cache, job.out), **common
    )


def _claim_stdout() -> TextIO:
    """Return standard output as a stream of our own, and send what libraries print there to standard error."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _explained(error: BaseException) -> BaseException:
    """Return an error that tells what to do, for errors that we know; the error itself otherwise."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return MachineError("the GPU has too little memory for this training", hint=SMALLER)
    # On a CPU torch raises a plain RuntimeError that names its allocator.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc_cpu.cpp" in str(error)):
        return MachineError("there is too little memory for this training", hint=SMALLER)
    return error
