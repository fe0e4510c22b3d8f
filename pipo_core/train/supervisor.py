"""Starts the training processes, shows their progress, passes Ctrl-C on, and explains how they ended.

The training runs in processes of its own (`pipo_core.train.worker`), so that this one survives a crash or a lack of
memory there and can explain it. Fine-tuning and distillation share all of this.
"""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from pipo_core.errors import Interrupted, MachineError, MissingInputError, PipoError
from pipo_core.files import read_object, write_json
from pipo_core.files.checkpoints import base_name
from pipo_core.recipes.opd import AnyTraining
from pipo_core.reporting import Progress, Reporter
from pipo_core.train.calibration import calibration_of
from pipo_core.train.events import SMALLER, Event, as_error, parse_event
from pipo_core.train.launch import command, environment
from pipo_core.train.layout import ADAPTER, JOB, METRICS, MODEL, RESULT, STOP_FILE, WORKER_LOG
from pipo_core.train.metrics_file import MetricsFile
from pipo_core.train.plan import missing_deepspeed, missing_swift

_SHOWN = ("loss", "learning_rate", "tokens_per_second", "rollout_share", "teacher_share", "student_share")
_TAIL_LINES = 15


def run_training(recipe: AnyTraining, out: Path, *, made_by: str, rows: int, reporter: Reporter) -> dict[str, Any]:
    """Train, or go on with an interrupted training, and return its summary.

    Args:
        recipe: its paths are real folders and files, and were checked.
        out: the stage's folder, which exists.
        made_by: fingerprint of everything that the weights depend on.
        rows: how many the data has.
        reporter: gets progress, losses and warnings.

    Raises:
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        MachineError: if ms-swift, or DeepSpeed that is asked for, is not installed.
        PipoError: if the training failed.
    """
    for lack in (missing_swift(), missing_deepspeed(recipe)):
        if lack is not None:
            raise lack
    artifact = out / (MODEL if recipe.tuning.leaves_model else ADAPTER)
    summary = finished(out, artifact, made_by)
    if summary is not None:
        return summary

    job = {
        "recipe": recipe.model_dump(mode="json"),
        "out": str(out.absolute()),
        "made_by": made_by,
        "base": base_name(Path(recipe.model)),
    }
    write_json(out / JOB, job)
    (out / STOP_FILE).unlink(missing_ok=True)
    began = time.monotonic()
    limit = "data.max_length" if recipe.kind == "train" else "data.max_prompt"
    run = _Run(out, reporter, rows=rows, length_limit=limit, is_first_node=recipe.launch.node_rank == 0)
    run.start(command(recipe, out.absolute() / JOB), environment(recipe))
    summary = {
        **run.summary(),
        "calibration": calibration_of(run.metrics.rows(), recipe.kind),
        "artifact": artifact.name,
        "rows": run.rows,
        "dropped_rows": run.dropped,
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(out / RESULT, {"made_by": made_by, "summary": summary})
    return summary


def finished(out: Path, artifact: Path, made_by: str) -> dict[str, Any] | None:
    """Return the summary of a training that has finished before, None if none has.

    Args:
        out: the stage's folder.
        artifact: the folder of the trained model or adapter, which must be there.
        made_by: fingerprint of the training that is asked for.
    """
    try:
        result = read_object(out / RESULT)
    except MissingInputError:
        return None
    if artifact.is_dir() and result.get("made_by") == made_by:
        summary: dict[str, Any] = result["summary"]
        return summary
    return None


class _Run:
    """One run of the training processes, from their start to their end."""

    def __init__(self, out: Path, reporter: Reporter, *, rows: int, length_limit: str, is_first_node: bool) -> None:
        """Prepare to start the processes.

        Args:
            out: the stage's folder.
            reporter: gets progress, losses and warnings.
            rows: how many the data has.
            length_limit: the recipe's key that limits the length of rows.
            is_first_node: whether the processes of this node write events.
        """
        self._out = out
        self._length_limit = length_limit
        self._reporter = reporter
        self._bars = ExitStack()
        self._bar = Progress("", None)
        self._bar_title = ""
        self._process: subprocess.Popen[str] | None = None
        self._interrupts = 0
        self.began = False
        self._ended: Event | None = None
        self._is_first_node = is_first_node
        self._first_step = 0
        self._step = 0
        self.metrics = MetricsFile(out)
        self.rows = rows
        self.dropped = 0

    def start(self, arguments: list[str], variables: Mapping[str, str]) -> None:
        """Run the processes to their end.

        Args:
            arguments: the command.
            variables: environment variables to add.

        Raises:
            Interrupted: if the user stopped them.
            PipoError: if they failed.
        """
        log = self._out / WORKER_LOG
        with log.open("a", encoding="utf-8") as log_file, self._bars, self._catch_interrupts():
            # In a session of its own the worker does not get the terminal's Ctrl-C; `_on_interrupt` passes it on.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,  # never written to: its end tells the workers that this process is gone
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env={**os.environ, **variables},
                start_new_session=True,
            )
            try:
                self._read_events(self._process, log_file)
            finally:
                self._end_process()
        self._raise_unless_done(self._process.returncode)

    def summary(self) -> dict[str, Any]:
        """Return steps and last figures of the training."""
        return {"steps": self._step, "resumed_from_step": self._first_step or None, **self.metrics.latest}

    # ------------------------------------------------------------------ events

    def _read_events(self, process: subprocess.Popen[str], log_file: IO[str]) -> None:
        """Handle every event that the worker writes; its other lines go to the log."""
        for line in process.stdout or ():
            event = parse_event(line)
            if event is None:
                log_file.write(line)
                log_file.flush()
            else:
                self._handle(event)
        process.wait()

    def _handle(self, event: Event) -> None:
        kind = event["event"]
        if kind == "encode":
            self._show_bar(f"tokenize {event['name']}", self.rows if event["name"] == "train" else None, "row")
            self._bar.update(event["done"])
        elif kind == "begin":
            self._on_begin(event)
        elif kind == "info":
            self._reporter.info(event["message"])
        elif kind == "warn":
            self._reporter.warn(event["message"])
        elif kind == "step":
            self._show_step(event["step"])
        elif kind == "log":
            self.metrics.append({key: value for key, value in event.items() if key != "event"})
            self._show_step(event["step"])
        elif kind in ("stopped", "done", "error"):
            self._ended = event
            if kind == "done":
                self.rows, self.dropped = event["rows"], event["dropped"]
                if not self.began:
                    self._settle(event["step"])
                self._show_step(event["step"])

    def _on_begin(self, event: Event) -> None:
        self.began = True
        self._first_step = event["step"]
        self.rows, self.dropped = event["rows"], event["dropped"]
        self._settle(self._first_step)
        if self.dropped:
            self._reporter.warn(f"{self.dropped} examples are longer than {self._length_limit} and are left out")
        if self._first_step:
            self._reporter.info(f"goes on from the checkpoint of step {self._first_step}")
        self._show_bar("train", event["steps"], "step")
        self._show_step(self._first_step)

    def _settle(self, step: int) -> None:
        wrong = self.metrics.settle(step)
        if wrong is not None:
            self._reporter.warn(f"{METRICS} {wrong}: its rows are those of the checkpoint")

    def _show_step(self, step: int) -> None:
        self._step = step
        self._bar.update(step, **{name: self.metrics.latest[name] for name in _SHOWN if name in self.metrics.latest})

    def _show_bar(self, title: str, total: int | None, unit: str) -> None:
        """Replace the bar that is shown by this one, unless it is shown already."""
        if title != self._bar_title:
            self._bars.close()
            self._bar_title = title
            self._bar = self._bars.enter_context(self._reporter.progress(title, total, unit=unit))

    # ------------------------------------------------------------------ stopping

    @contextmanager
    def _catch_interrupts(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM with `_on_interrupt`; Python allows handlers in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_interrupt(self, *_: object) -> None:
        """Ask the worker to save and stop; the second time end it, the third time kill it.

        Before training has begun there is nothing to save, so the first Ctrl-C ends the worker already.
        """
        self._interrupts += 1
        process = self._process
        if process is None:
            raise KeyboardInterrupt
        if self._interrupts == 1 and self.began:
            (self._out / STOP_FILE).touch()
            self._reporter.info("stopping after this step, with a checkpoint; Ctrl-C again stops at once")
        elif self._interrupts <= 2:
            process.terminate()
        else:
            process.kill()

    def _end_process(self) -> None:
        """End the worker if it still runs; called however the run ends."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process is not None and process.stdin is not None:
            process.stdin.close()
        (self._out / STOP_FILE).unlink(missing_ok=True)

    # ------------------------------------------------------------------ the end

    def _raise_unless_done(self, code: int) -> None:
        """Raise unless the training finished.

        Args:
            code: exit code of the worker.

        Raises:
            Interrupted: if the user stopped it.
            PipoError: if it failed.
        """
        kind = self._ended["event"] if self._ended is not None else None
        if kind == "done" or (code == 0 and not self._is_first_node):
            return  # only the first node's workers write events
        # If saving after the first Ctrl-C fails, report that error. After a second Ctrl-C no save was wanted.
        failed_to_save = kind == "error" and self._interrupts == 1
        if (self._interrupts or kind == "stopped") and not failed_to_save:
            saved = self._ended is not None and self._ended.get("step")
            where = f"after step {saved}, with a checkpoint" if saved else "before the next checkpoint"
            raise Interrupted(f"training stopped {where}", hint="the same command goes on")
        log = self._out / WORKER_LOG
        if self._ended is not None and self._ended.get("kind"):
            raise as_error(self._ended)
        self._reporter.warn("\n".join(_tail(log)))
        if code == -signal.SIGKILL:
            raise MachineError(
                "the training process was killed, most likely for lack of memory",
                hint=f"the same command goes on, perhaps to the same end; {SMALLER}",
            )
        reason = self._ended["message"] if self._ended is not None else f"exit code {code}"
        raise PipoError(f"training failed: {reason}", hint=f"see {log}")


def _tail(log: Path) -> list[str]:
    """Return the last lines of a log."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip() for line in deque(file, maxlen=_TAIL_LINES)]
