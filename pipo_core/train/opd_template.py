"""Distillation's batches and loss, as ms-swift's template hooks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from pipo_core.model import LossWeights, PIPOOutput, TeacherTargets
from pipo_core.model.distillation import DivergenceMode
from pipo_core.train.opd_rows import Question
from pipo_core.train.opd_teacher import Teacher
from pipo_core.train.template import Loss, PairTemplate, log_figures


@dataclass(frozen=True)
class DistillPlan:
    """How a batch becomes a loss.

    Attributes:
        teacher: who is asked.
        weights: of the losses.
        mode: form of the divergence.
        temperature: divides both models' logits.
        top_k: of the ``topk`` forms.
        check: called with each loss and the batch's questions; raises if the loss is no number.
        took: called with a part's name to time what is done within.
    """

    teacher: Teacher
    weights: LossWeights
    mode: DivergenceMode
    temperature: float
    top_k: int
    check: Callable[[torch.Tensor, list[Question]], None]
    took: Callable[[str], AbstractContextManager[None]]


class DistillTemplate(PairTemplate):
    """Questions in batches, and the loss of the answers that `opd.PairDistillation` puts beside them.

    `lesson` must be set before the first batch.
    """

    lesson: DistillPlan

    def _data_collator(self, batch: list[Any], *, padding_to: int | None = None) -> dict[str, Any]:
        return {"questions": batch}

    def compute_sft_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None, trainer: Any = None
    ) -> Loss:
        """Return the loss, computed inside the wrapped model's call, and put the figures where the log finds them."""
        lesson = self.lesson
        questions, pads = inputs.pop("questions"), inputs.pop("pads")
        with lesson.took("teacher_share"):
            hidden = lesson.teacher.read(inputs["input_ids"], pads)
        outputs: PIPOOutput = model(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            objective="distill",
            loss_weights=lesson.weights,
            teacher=TeacherTargets(hidden, lesson.teacher.head, lesson.mode, lesson.temperature, lesson.top_k),
        )
        if outputs.loss is not None:
            lesson.check(outputs.loss, questions)
        metrics = trainer.custom_metrics["train"]
        log_figures(outputs, metrics)
        metrics["tokens_per_second"].update(int((~pads).sum()))
        return Loss(loss=outputs.loss)
