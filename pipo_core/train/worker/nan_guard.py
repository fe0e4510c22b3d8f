"""Ends a training before a NaN or infinite loss or gradient reaches the weights.

Where the gradient's norm is NaN, ms-swift drops all gradients and goes on silently. The training would be worth nothing
from there on, and its checkpoints would push out the good ones.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn, TypeVar

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from pipo_core.errors import PipoError

Value = TypeVar("Value")


class NanGuard(TrainerCallback):
    """Checks every loss, and the gradients of every step.

    Attributes:
        lines: lines of the data file that the current step learns from; empty if they are not known.
    """

    def __init__(self, file: str) -> None:
        """Name a file in errors.

        Args:
            file: the training data.
        """
        self._file = file
        self._step = 0
        self.lines: list[int] = []

    def check_loss(self, loss: torch.Tensor, lines: Sequence[int] = ()) -> None:
        """Raise on every process if the loss of one is NaN or infinite. All processes must call this.

        Args:
            loss: of a micro-batch.
            lines: those that it was computed from.

        Raises:
            PipoError: naming the step and, if known, the lines.
        """
        total = loss.detach().clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if not torch.isfinite(total):
            bad = [(value, where) for value, where in _from_all((loss.item(), [*lines])) if not isfinite(value)]
            value, where = bad[0] if bad else (total.item(), [*lines])
            self._raise(f"the loss is {value}", where)

    @override
    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the number of the step."""
        self._step = state.global_step + 1

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check every gradient. DeepSpeed keeps gradients to itself, and skips such steps itself.

        Raises:
            PipoError: naming the step.
        """
        if args.deepspeed:
            return
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        if not gradients or not torch.stack([gradient.sum() for gradient in gradients]).isfinite().all():
            self._raise("the gradient is NaN or infinite", [line for own in _from_all(self.lines) for line in own])

    def _raise(self, what: str, lines: Sequence[int]) -> NoReturn:
        where = f"on lines {', '.join(map(str, lines))} of {self._file}" if lines else f"on rows of {self._file}"
        raise PipoError(
            f"{what} at step {self._step}, {where}",
            hint="the last checkpoint is from before it; lower optimizer.learning_rate, with run=NAME or --restart",
        )


def _from_all(mine: Value) -> list[Value]:
    """Return the value of each process. All processes must call this."""
    if not torch.distributed.is_initialized():
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
