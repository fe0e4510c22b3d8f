"""Fine-tuning's batches, in slots with PADs, and its loss, as ms-swift's template hooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from typing_extensions import override

from pipo_core.data.augment import PairedExample, augment, choose_phase, pair
from pipo_core.data.collate import collate_pairs, collate_regular
from pipo_core.model import LossWeights, PIPOOutput
from pipo_core.recipes.sft import PadPhase
from pipo_core.train.worker.sft_examples import Example
from pipo_core.train.worker.template import PairTemplate, TrainingLoss, log_figures


class TrainingProgress(NamedTuple):
    """How far training is.

    Attributes:
        share: of the steps that are done, in [0, 1].
        epoch: its number, from 0.
    """

    share: float
    epoch: int


@dataclass(frozen=True)
class SftLossSettings:
    """How examples become batches and losses.

    Attributes:
        objective: ``pipo`` or ``regular``.
        pad_phases: the PAD schedule; empty for no PADs.
        prompt_shift: share of the examples whose prompt is moved by one place.
        seed: of the augmentation.
        weights: of the losses.
        progress: returns how far training is.
        check_loss: called with each loss in training; raises if it is NaN or infinite.
        draft_ids: the ids that the gate learns to keep drafts of; None for all.
    """

    objective: str
    pad_phases: Sequence[PadPhase]
    prompt_shift: float
    seed: int
    weights: LossWeights
    progress: Callable[[], TrainingProgress]
    check_loss: Callable[[torch.Tensor], None]
    draft_ids: torch.Tensor | None = None


class SftTemplate(PairTemplate):
    """Batches of conversations and their cross-entropies. `settings` must be set before the first batch."""

    settings: SftLossSettings

    @override
    def _data_collator(self, batch: list[Example], *, padding_to: int | None = None) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels``, ``[B, T]``, and ``real_tokens``, their number without any PAD."""
        pad_id: int = self.tokenizer.pad_token_id
        if self.settings.objective == "pipo":
            collated = collate_pairs([self._in_slots(example, pad_id) for example in batch], pad_id=pad_id)
        else:
            collated = collate_regular([(example.ids, example.labels) for example in batch], pad_id=pad_id)
        return {**collated._asdict(), "real_tokens": sum(example.ids.size for example in batch)}

    def _in_slots(self, example: Example, pad_id: int) -> PairedExample:
        """Return an example in slots, with the PADs that the schedule inserts at this point of the training."""
        settings = self.settings
        if not example.augmented or not (settings.pad_phases or settings.prompt_shift):
            return pair(example.ids, example.labels, pad_id=pad_id)
        progress = settings.progress()
        phase = choose_phase(settings.pad_phases, progress.share) if settings.pad_phases else None
        return augment(
            example.ids,
            example.labels,
            phase=phase,
            seed=settings.seed,
            epoch=progress.epoch,
            pad_id=pad_id,
            prompt_shift=settings.prompt_shift,
        )

    @override
    def compute_sft_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None, trainer: Any = None
    ) -> TrainingLoss:
        """Return the loss, computed inside the wrapped model's call, and add its figures to the trainer's metrics."""
        settings = self.settings
        real_tokens = inputs.pop("real_tokens")
        outputs: PIPOOutput = model(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            objective=settings.objective,
            loss_weights=settings.weights,
            draft_ids=settings.draft_ids,
        )
        if model.training and outputs.loss is not None:
            settings.check_loss(outputs.loss)
        metrics = trainer.custom_metrics["train" if model.training else "eval"]
        log_figures(outputs, metrics)
        if model.training:
            metrics["tokens_per_second"].update(real_tokens)
        return TrainingLoss(loss=outputs.loss)
