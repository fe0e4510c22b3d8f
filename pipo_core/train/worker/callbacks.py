"""The callback of the Trainer that reports progress, completes checkpoints, and stops when asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from pipo_core.train.checkpoints import keep_newest, mark_complete
from pipo_core.train.events import EventWriter, figures_of
from pipo_core.train.worker.stop import StopRequest


class TrainingEvents(TrainerCallback):
    """Reports to the supervisor, marks complete checkpoints, and ends the training when asked.

    Attributes:
        stopped: whether the training was ended because it was asked to stop.
    """

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
            events: to the supervisor.
            stop: asks for the end.
            made_by: fingerprint of the training, for the markers of checkpoints.
            rows: how many there are to train on.
            dropped: how many were too long.
            before_first_step: called when model, optimizer and checkpoint are loaded.
        """
        self._events = events
        self._stop = stop
        self._made_by = made_by
        self._rows = rows
        self._dropped = dropped
        self._before_first_step = before_first_step
        self._keep = 0
        self.stopped = False

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the number of steps."""
        # From here on old checkpoints are removed by `on_save` alone.
        self._keep, args.save_total_limit = args.save_total_limit, None
        self._before_first_step()
        self._stop.training_begins()
        self._events.write(
            "begin", step=state.global_step, steps=state.max_steps, rows=self._rows, dropped=self._dropped
        )

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the step; save and stop if asked.

        A row of the log is written with every checkpoint and at the end. So the last row covers the last step, and the
        first row of a resumed training covers no step from before the checkpoint.
        """
        self._events.count("step", step=state.global_step)
        if _any_process(self._stop.requested(), args.device) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        if control.should_save or state.global_step == state.max_steps:
            control.should_log = True

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report a row of figures."""
        figures = figures_of(logs or {})
        if figures is not None:
            self._events.write("log", **{"step": state.global_step, **figures})

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that the Trainer has just written as complete, then remove old ones.

        All processes have written their parts before this is called.
        """
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir, f"checkpoint-{state.global_step}"), self._made_by)
            keep_newest(Path(args.output_dir), self._keep)
            self._events.write("save", step=state.global_step)


def _any_process(mine: bool, device: torch.device) -> bool:
    """Return whether any process says True: all must stop after the same step."""
    if not torch.distributed.is_initialized():
        return mine
    anyone = torch.tensor(int(mine), device=device)
    torch.distributed.all_reduce(anyone, op=torch.distributed.ReduceOp.MAX)
    return bool(anyone.item())
