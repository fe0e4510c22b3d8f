"""What happens around the Trainer's steps: events, complete checkpoints, stopping when asked."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from swift.metrics.utils import Metric
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipo_core.train.checkpoints import keep_newest, mark_complete
from pipo_core.train.events import EventWriter, figures_of


class StoppedEarly(Exception):
    """The training was asked to stop before its first step, so there is nothing to save."""


class StopRequest:
    """Whether the training is asked to stop: by a signal, by a file, or because its parent is gone."""

    def __init__(self, file: Path) -> None:
        """Watch for ``file``."""
        self._file = file
        self._asked = False
        self._training = False

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; a second one ends the process at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def end_with(self, pipe: int) -> None:
        """Ask for the end as soon as ``pipe`` ends, whose other end the parent alone holds, however it dies."""
        threading.Thread(target=self._wait_for_end, args=(pipe,), daemon=True).start()

    def ask(self) -> None:
        """Ask for the end after the step at hand."""
        self._asked = True

    def training_begins(self) -> None:
        """From now on there is something to save. Raises `StoppedEarly` if a request came before."""
        if self.requested():
            raise StoppedEarly
        self._training = True

    def requested(self) -> bool:
        """Return whether this process knows of a request."""
        return self._asked or self._file.exists()

    def agreed(self, device: torch.device) -> bool:
        """Return whether any process knows of a request: all must stop after the same step."""
        mine = self.requested()
        if not torch.distributed.is_initialized():
            return mine
        anyone = torch.tensor(int(mine), device=device)
        torch.distributed.all_reduce(anyone, op=torch.distributed.ReduceOp.MAX)
        return bool(anyone.item())

    def _wait_for_end(self, pipe: int) -> None:
        while os.read(pipe, 1 << 10):
            pass
        self.ask()
        if not self._training:
            os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread, where there is nothing to save

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self.requested(), True
        if not self._training:
            raise StoppedEarly
        if again:
            raise KeyboardInterrupt


class TokenRate(Metric):
    """Real tokens a second of wall time since the last report, over all processes."""

    def __init__(self, device: torch.device) -> None:
        """Count on ``device`` where processes add up."""
        super().__init__()
        self._device = device
        self._tokens = 0
        self._since = time.monotonic()

    def reset(self) -> None:
        """Start a new span."""
        self._tokens = 0
        self._since = time.monotonic()

    def update(self, tokens: int) -> None:
        """Add the tokens of one pass."""
        self._tokens += tokens

    def compute(self) -> dict[str, float | None]:
        """Return tokens a second, None without any pass."""
        total = torch.tensor(float(self._tokens), dtype=torch.float64, device=self._device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {"value": total.item() / seconds if total else None}


class TrainingEvents(TrainerCallback):
    """Tells the parent what happens, marks whole checkpoints, and ends the training when asked."""

    def __init__(
        self,
        events: EventWriter,
        stop: StopRequest,
        *,
        made_by: str,
        rows: int,
        dropped: int,
        before_first_step: Callable[[], None],
    ) -> None:
        """Report to ``events`` and obey ``stop``.

        Args:
            events: the parent's ear.
            stop: asks for the end.
            made_by: goes into checkpoint markers.
            rows: how many there are to train on.
            dropped: how many were too long.
            before_first_step: a last check, called when everything is in place.
        """
        self._events = events
        self._stop = stop
        self._made_by = made_by
        self._rows = rows
        self._dropped = dropped
        self._before_first_step = before_first_step
        self._keep = 0
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how long it will be."""
        # From here on old checkpoints are removed by `on_save` alone.
        self._keep, args.save_total_limit = args.save_total_limit, None
        self._before_first_step()
        self._stop.training_begins()
        self._events.write(
            "begin", step=state.global_step, steps=state.max_steps, rows=self._rows, dropped=self._dropped
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step; save and stop if asked.

        A row of the log ends with the training and with every checkpoint: what the last row says is the end, and the
        next row of a resumed training covers no step that came before.
        """
        self._events.count("step", step=state.global_step)
        if self._stop.agreed(args.device) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        if control.should_save or state.global_step == state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Pass a row of figures on."""
        figures = figures_of(logs or {})
        if figures is not None:
            self._events.write("log", **{"step": state.global_step, **figures})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that the Trainer has just written, then remove old ones.

        All processes have written their part by now.
        """
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir, f"checkpoint-{state.global_step}"), self._made_by)
            keep_newest(Path(args.output_dir), self._keep)
            self._events.write("save", step=state.global_step)
