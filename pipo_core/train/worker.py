"""The process that trains: ``python -m pipo_core.train.worker job.json``, one or, under torchrun, many.

It tells its parent what happens as one JSON object a line on standard output (see `events`); everything that libraries
print goes to standard error.
"""

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from pipo_core.errors import MachineError
from pipo_core.files import FolderLock, full_disk, new_folder, read_json, workers_lock_of, write_json
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.train.arguments import swift_arguments
from pipo_core.train.checkpoints import keep_newest, newest_complete, remove_incomplete
from pipo_core.train.events import SMALLER, EventWriter
from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD, CHECKPOINTS, MODEL, STOP_FILE
from pipo_core.train.rows import cache_folder

_PATIENCE_SECONDS = 60.0

if TYPE_CHECKING:
    from pipo_core.train.callbacks import StopRequest
    from pipo_core.train.session import PairSession


@dataclass(frozen=True)
class Job:
    """What the parent asks for.

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
        """Return the job of a file that `parent.run_training` wrote."""
        content = read_json(file)
        recipe = KINDS[content["recipe"]["kind"]].model_validate(content["recipe"])
        return cls(cast(AnyTraining, recipe), Path(content["out"]), content["made_by"], content["base"])


def main(job_file: Path) -> int:
    """Train what the job file says and return the exit code."""
    stream = _claim_stdout()
    is_first = int(os.environ.get("RANK", "0")) == 0
    # Imports torch, so it comes after standard output is out of the libraries' reach.
    from pipo_core.train.callbacks import StoppedEarly, StopRequest

    out = job_file.parent
    stop = StopRequest(out / STOP_FILE)
    events = EventWriter(stream if is_first else None, on_lost=stop.ask)
    stop.listen()
    stop.end_with(sys.stdin.fileno())
    try:
        # A parent that is killed leaves this process behind for a while, and the next parent waits for this lock.
        # One that comes late reads below what the next parent wrote, and is ended by its closed standard input.
        lock = FolderLock(workers_lock_of(out), patience=_PATIENCE_SECONDS, about=out)
        with lock if is_first else contextlib.nullcontext():
            train(Job.read(job_file), is_first=is_first, events=events, stop=stop)
    except StoppedEarly:
        events.write("stopped", step=None)
    except BaseException as error:  # noqa: BLE001 - the parent must learn of whatever it was
        events.error(full_disk(error, out / CHECKPOINTS) or _explained(error))
        with contextlib.suppress(OSError):  # of a full disk, where the log lies too
            traceback.print_exc()
        return 1
    return 0


def train(job: Job, *, is_first: bool, events: EventWriter, stop: "StopRequest") -> None:
    """Train in this process and write the artifact, unless asked to stop before.

    Args:
        job: what to train.
        is_first: whether this is the process that writes files, one of all that train together.
        events: where progress goes.
        stop: asks for an early end.

    Raises:
        MachineError: if the machine cannot train at this precision.
        PipoError: if the data, the model or the checkpoints are not fit.
    """
    import torch

    from pipo_core.train import swift_plugin

    on_cpu = not torch.cuda.is_available()
    if job.recipe.precision == "bf16" and on_cpu:
        raise MachineError("precision: bf16 needs a GPU, and there is none", hint="give precision=fp32")
    swift_plugin.register()
    checkpoints = job.out / CHECKPOINTS
    if is_first:
        remove_incomplete(checkpoints)
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
        _write_artifact(job, session, weights)
    dataset = session.trainer.train_dataset
    events.write("done", step=step, rows=len(dataset), dropped=dataset.dropped)


def _open_session(job: Job, arguments: Mapping[str, Any], **common: Any) -> "PairSession":
    """Load what the recipe's kind of training needs."""
    from swift import SftArguments

    from pipo_core.train.opd import PairDistillation
    from pipo_core.train.session import PairSft

    if isinstance(job.recipe, DistillRecipe):
        return PairDistillation(SftArguments(**arguments), job.recipe, **common)
    return PairSft(SftArguments(**arguments), job.recipe, cache=cache_folder(job.recipe.data.cache, job.out), **common)


def _write_artifact(job: Job, session: "PairSession", weights: Mapping[str, Any]) -> None:
    """Write the model, or the adapter and the modules that trained in full, with tokenizer and chat template."""
    from pipo_core.model.writing import copy_tokenizer, write_weights

    recipe = job.recipe
    source = Path(recipe.model)
    if recipe.tuning.method == "full":
        with new_folder(job.out / MODEL) as folder:
            if recipe.objective == "pipo":
                write_weights(session.bare_model, folder, layout="pipo", state=weights, base=job.base)
            else:
                write_weights(session.bare_model, folder, layout="base", state=weights)
            copy_tokenizer(source, folder)
            _record_vocabulary(job, session, folder)
        return
    with new_folder(job.out / ADAPTER) as folder:
        session.model.save_pretrained(folder, state_dict=weights, selected_adapters=["default"])
        copy_tokenizer(source, folder)
        _record_vocabulary(job, session, folder)
        write_json(folder / ADAPTER_RECORD, {"objective": recipe.objective, "base": job.base})


def _record_vocabulary(job: Job, session: "PairSession", folder: Path) -> None:
    """Record which tokens the training set is made of; a distillation, which has none, keeps the earlier record."""
    from pipo_core.model.frequent_tokens import DRAFT_VOCAB, write_draft_vocab

    if not isinstance(job.recipe, DistillRecipe):
        write_draft_vocab(folder, session.trainer.train_dataset.learned())
    elif (Path(job.recipe.model) / DRAFT_VOCAB).is_file():
        shutil.copyfile(Path(job.recipe.model) / DRAFT_VOCAB, folder / DRAFT_VOCAB)


def _claim_stdout() -> TextIO:
    """Return standard output as a stream of our own and point what libraries print to standard error."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _explained(error: BaseException) -> BaseException:
    """Return the error in words that tell what to do, where we know it."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return MachineError(
            "the GPU has too little memory for this training",
            hint=SMALLER,
        )
    # On a CPU torch raises no class of its own.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc_cpu.cpp" in str(error)):
        return MachineError(
            "there is too little memory for this training",
            hint=SMALLER,
        )
    return error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
