"""Starts the processes that train, and tells what they do: the part that fine-tuning and distillation share.

Imports no torch: the training runs in processes of its own (see `worker`), so that a crash or a lack of memory there
leaves this one able to explain it.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from pipo_core.errors import Interrupted, MachineError, MissingInputError, PipoError
from pipo_core.files import append_jsonl, read_jsonl, read_object, write_atomic, write_json
from pipo_core.recipes.opd import AnyTraining
from pipo_core.reporting import Progress, Reporter
from pipo_core.train.calibration import calibration_of
from pipo_core.train.checkpoints import logged
from pipo_core.train.events import SMALLER, Event, as_error, figures_of, parse_event
from pipo_core.train.launch import command, environment, missing_deepspeed
from pipo_core.train.layout import ADAPTER, CHECKPOINTS, JOB, METRICS, MODEL, RESULT, STOP_FILE, WORKER_LOG
from pipo_core.train.models import base_name

_SHOWN = ("loss", "learning_rate", "tokens_per_second")
_TAIL_LINES = 15


def run_training(recipe: AnyTraining, out: Path, *, made_by: str, rows: int, reporter: Reporter) -> dict[str, Any]:
    """Train, or go on with an interrupted training, and return its summary.

    Args:
        recipe: its paths are real folders and files, and were looked at.
        out: the stage's folder, which exists.
        made_by: fingerprint of everything that the weights depend on.
        rows: of the data.
        reporter: hears of progress, losses and trouble.

    Raises:
        Interrupted: if the user stopped it; a checkpoint was saved and the same call goes on.
        MachineError: if DeepSpeed is asked for and missing.
        PipoError: if the training failed.
    """
    deepspeed = missing_deepspeed(recipe)
    if deepspeed is not None:
        raise deepspeed
    artifact = out / (MODEL if recipe.tuning.method == "full" else ADAPTER)
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
    longest = "data.max_length" if recipe.kind == "train" else "data.max_prompt"
    run = _Run(out, reporter, rows=rows, longest=longest, is_first_node=recipe.launch.node_rank == 0)
    run.start(command(recipe, out.absolute() / JOB), environment(recipe))
    summary = {
        **run.summary(),
        "calibration": calibration_of(read_jsonl(out / METRICS) if (out / METRICS).is_file() else [], recipe.kind),
        "artifact": artifact.name,
        "rows": run.rows,
        "dropped_rows": run.dropped,
        "seconds": round(time.monotonic() - began, 1),
    }
    write_json(out / RESULT, {"made_by": made_by, "summary": summary})
    return summary


def finished(out: Path, artifact: Path, made_by: str) -> dict[str, Any] | None:
    """Return the summary of a training that is done already."""
    try:
        result = read_object(out / RESULT)
    except MissingInputError:
        return None
    if artifact.is_dir() and result.get("made_by") == made_by:
        summary: dict[str, Any] = result["summary"]
        return summary
    return None


class _Run:
    """One life of the training processes, seen from their parent."""

    def __init__(self, out: Path, reporter: Reporter, *, rows: int, longest: str, is_first_node: bool) -> None:
        self._out = out
        self._longest = longest
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
        self._figures: dict[str, float] = {}
        self.rows = rows
        self.dropped = 0

    def start(self, arguments: list[str], variables: Mapping[str, str]) -> None:
        """Run the processes to their end.

        Raises:
            Interrupted: if the user stopped them.
            PipoError: if they failed.
        """
        log = self._out / WORKER_LOG
        with log.open("a", encoding="utf-8") as log_file, self._bars, self._catch_interrupts():
            # A session of its own keeps the terminal's Ctrl-C away: the stop is ours to arrange.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,  # nothing is written: that it ends tells the processes that this one is gone
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env={**os.environ, **variables},
                start_new_session=True,
            )
            try:
                self._listen(self._process, log_file)
            finally:
                self._end_process()
        self._judge(self._process.returncode)

    def summary(self) -> dict[str, Any]:
        """Return what the training came to."""
        return {"steps": self._step, "resumed_from_step": self._first_step or None, **self._figures}

    # ------------------------------------------------------------------ hearing

    def _listen(self, process: subprocess.Popen[str], log_file: IO[str]) -> None:
        for line in process.stdout or ():
            event = parse_event(line)
            if event is None:
                log_file.write(line)
                log_file.flush()
            else:
                self._hear(event)
        process.wait()

    def _hear(self, event: Event) -> None:
        kind = event["event"]
        if kind == "encode":
            self._show_bar(f"tokenize {event['name']}", self.rows if event["name"] == "train" else None, "row")
            self._bar.update(event["done"])
        elif kind == "begin":
            self._begin(event)
        elif kind == "step":
            self._go_to(event["step"])
        elif kind == "log":
            self._log(event)
            self._go_to(event["step"])
        elif kind in ("stopped", "done", "error"):
            self._ended = event
            if kind == "done":
                self.rows, self.dropped = event["rows"], event["dropped"]
                if not self.began:
                    self._settle_metrics(event["step"])
                self._go_to(event["step"])

    def _begin(self, event: Event) -> None:
        self.began = True
        self._first_step = event["step"]
        self.rows, self.dropped = event["rows"], event["dropped"]
        self._settle_metrics(self._first_step)
        if self.dropped:
            self._reporter.warn(f"{self.dropped} rows are longer than {self._longest} and are left out")
        if self._first_step:
            self._reporter.info(f"goes on from the checkpoint of step {self._first_step}")
        self._show_bar("train", event["steps"], "step")
        self._go_to(self._first_step)

    def _log(self, event: Event) -> None:
        row = {key: value for key, value in event.items() if key != "event"}
        append_jsonl(self._out / METRICS, [row])
        self._take_figures(row)

    def _settle_metrics(self, step: int) -> None:
        """Bring the rows to where the checkpoint of `step` stands.

        A killed run leaves rows of steps after it, which come again, and may not have heard of rows before it, which
        the checkpoint remembers.
        """
        metrics = self._out / METRICS
        rows = read_jsonl(metrics) if metrics.is_file() else []
        remembered = [figures_of(row) for row in logged(self._out / CHECKPOINTS, step)]
        known = [*({"step": row["step"], **row} for row in remembered if row is not None), *rows]
        unique = {(row["step"], "eval_loss" in row): row for row in known if row["step"] <= step}
        settled = [unique[key] for key in sorted(unique)]
        if settled != rows:
            write_atomic(metrics, "".join(json.dumps(row) + "\n" for row in settled))
        for row in settled:
            self._take_figures(row)

    def _take_figures(self, row: Mapping[str, Any]) -> None:
        figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
        self._figures.update({key: value for key, value in figures.items() if key not in ("step", "epoch")})

    def _go_to(self, step: int) -> None:
        self._step = step
        self._bar.update(step, **{name: self._figures[name] for name in _SHOWN if name in self._figures})

    def _show_bar(self, title: str, total: int | None, unit: str) -> None:
        """Let this bar be the one shown; at a bar that is shown already, do nothing."""
        if title != self._bar_title:
            self._bars.close()
            self._bar_title = title
            self._bar = self._bars.enter_context(self._reporter.progress(title, total, unit=unit))

    # ------------------------------------------------------------------ stopping

    @contextmanager
    def _catch_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C, or SIGTERM, ask the training for its end; Python allows this in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        process = self._process
        if process is None:
            raise KeyboardInterrupt
        if self._interrupts == 1 and self.began:
            (self._out / STOP_FILE).touch()
            self._reporter.info("stopping after this step, with a checkpoint; Ctrl-C again stops at once")
        elif self._interrupts <= 2:
            process.terminate()  # asked already, so the worker ends at once
        else:
            process.kill()

    def _end_process(self) -> None:
        """See to it that nothing trains on when this run is left, however it is left."""
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

    # ------------------------------------------------------------------ judging

    def _judge(self, code: int) -> None:
        """Raise unless the training came to its end."""
        kind = self._ended["event"] if self._ended is not None else None
        if kind == "done" or (code == 0 and not self._is_first_node):
            return  # only the first node's processes tell what they do
        # What went wrong while the stop that Ctrl-C asked for was saved is an error; a second Ctrl-C asks for no save.
        failed_to_save = kind == "error" and self._interrupts == 1
        if (self._interrupts or kind == "stopped") and not failed_to_save:
            saved = self._ended is not None and self._ended.get("step")
            where = f"after step {saved}, with a checkpoint" if saved else "before the next checkpoint"
            raise Interrupted(f"training stopped {where}", hint="give the same command again, it goes on")
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
    with log.open(encoding="utf-8", errors="replace") as file:
        return [line.rstrip() for line in deque(file, maxlen=_TAIL_LINES)]
