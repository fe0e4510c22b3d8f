"""Ends a training before a loss or a gradient that is no number reaches the weights.

ms-swift takes all gradients away where their norm is NaN, and would go on without a word; what came after would be
worth nothing, and checkpoints of it would push out the good ones.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn, TypeVar

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipo_core.errors import PipoError

Thing = TypeVar("Thing")


class NumberCheck(TrainerCallback):
    """Looks at every loss and at every step's gradient.

    Args:
        file: the training set's.

    Attributes:
        lines: of the file, those that the step at hand learns from; empty where that is not known.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._step = 0
        self.lines: list[int] = []

    def loss(self, loss: torch.Tensor, lines: Sequence[int] = ()) -> None:
        """Raise on every process if the loss of one is no number; ``lines`` are those that it was made of."""
        total = loss.detach().clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if not torch.isfinite(total):
            bad = [(value, where) for value, where in _of_all((loss.item(), [*lines])) if not isfinite(value)]
            value, where = bad[0] if bad else (total.item(), [*lines])
            self._stop(f"the loss is {value}", where)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note which step it is."""
        self._step = state.global_step + 1

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at every gradient. DeepSpeed keeps its own, and skips such steps itself."""
        if args.deepspeed:
            return
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        if not gradients or not torch.stack([gradient.sum() for gradient in gradients]).isfinite().all():
            self._stop("the gradient is no number", [line for own in _of_all(self.lines) for line in own])

    def _stop(self, what: str, lines: Sequence[int]) -> NoReturn:
        where = f"on lines {', '.join(map(str, lines))} of {self._file}" if lines else f"on rows of {self._file}"
        raise PipoError(
            f"{what} at step {self._step}, {where}",
            hint="the last checkpoint is from before it; lower optimizer.learning_rate, with run=NAME or --restart",
        )


def _of_all(mine: Thing) -> list[Thing]:
    """Return what each process has; all must call this."""
    if not torch.distributed.is_initialized():
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
