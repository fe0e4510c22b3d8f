"""Distillation's batches of questions and its loss, as ms-swift's template hooks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override

from pipo_core.model import ListedTargets, LossWeights, PIPOOutput, TeacherTargets
from pipo_core.model.distillation import DivergenceMode
from pipo_core.train.worker.opd_examples import Question
from pipo_core.train.worker.opd_served_teacher import TEACHER_IDS, TEACHER_LOGPROBS
from pipo_core.train.worker.opd_teacher import Teacher
from pipo_core.train.worker.template import PairTemplate, TrainingLoss, log_figures


@dataclass(frozen=True)
class DistillLossSettings:
    """How the student's answers become a loss.

    Attributes:
        teacher: gives the targets; None if servers gave them before the step.
        weights: of the losses.
        mode: form of the divergence.
        temperature: divides both models' logits.
        top_k: of the ``topk`` forms.
        check_loss: called with each loss and its questions; raises if the loss is NaN or infinite.
        timed: opened with the name of a time share, measures the work within.
        draft_ids: the ids that the gate learns to keep drafts of; None for all.
    """

    teacher: Teacher | None
    weights: LossWeights
    mode: DivergenceMode
    temperature: float
    top_k: int
    check_loss: Callable[[torch.Tensor, list[Question]], None]
    timed: Callable[[str], AbstractContextManager[None]]
    draft_ids: torch.Tensor | None = None


class OpdTemplate(PairTemplate):
    """Batches of questions, and the divergence of the answers that `OpdSession` adds to them.

    `settings` must be set before the first batch.
    """

    settings: DistillLossSettings

    @override
    def _data_collator(self, batch: list[Any], *, padding_to: int | None = None) -> dict[str, Any]:
        """Return the questions; their answers are added before the step (`OpdSession`)."""
        return {"questions": batch}

    @override
    def compute_sft_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None, trainer: Any = None
    ) -> TrainingLoss:
        """Return the loss, computed inside the wrapped model's call, and add its figures to the trainer's metrics."""
        settings = self.settings
        questions, pads = inputs.pop("questions"), inputs.pop("pads")
        teacher: TeacherTargets | ListedTargets
        if settings.teacher is None:
            teacher = ListedTargets(inputs.pop(TEACHER_IDS), inputs.pop(TEACHER_LOGPROBS))
        else:
            with settings.timed("teacher_share"):
                hidden = settings.teacher.read(inputs["input_ids"], pads)
            head = settings.teacher.head
            teacher = TeacherTargets(hidden, head, settings.mode, settings.temperature, settings.top_k)
        outputs: PIPOOutput = model(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            objective="distill",
            loss_weights=settings.weights,
            teacher=teacher,
            draft_ids=settings.draft_ids,
        )
        if outputs.loss is not None:
            settings.check_loss(outputs.loss, questions)
        metrics = trainer.custom_metrics["train"]
        log_figures(outputs, metrics)
        metrics["tokens_per_second"].update(int((~pads).sum()))
        return TrainingLoss(loss=outputs.loss)
