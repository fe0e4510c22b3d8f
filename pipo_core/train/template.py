"""Qwen's chat format for text, batches in slots, and the losses, as ms-swift's template hooks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from swift.template import Template
from swift.template.templates.qwen import Qwen3_5Template
from transformers.utils.generic import ModelOutput

from pipo_core.chat import ControlTokens
from pipo_core.data.augment import PairedRow, augment, choose_phase, pair
from pipo_core.data.collate import collate_pairs, collate_regular
from pipo_core.model import LossWeights, PIPOOutput
from pipo_core.recipes.sft import PadPhase
from pipo_core.train.rows import THINK, Row

ACCEPTANCE_AT = (0.5, 0.8, 0.9, 0.95)
"""Thresholds τ for which training reports the share of drafts that would be kept."""

CALIBRATION = "calibration"
"""Name of the `GateMetric`, which a training of pairs has."""

_SLOTS = ("{{SYSTEM}}", "{{QUERY}}", "{{RESPONSE}}", "{{ROUND0}}", "{{ROUND1}}")
"""What ms-swift fills in where a layout has it, also in what people wrote."""


class Position(NamedTuple):
    """How far training is: the share that is over, in [0, 1], and the number of the epoch, from 0."""

    progress: float
    epoch: int


@dataclass(frozen=True)
class LessonPlan:
    """How rows become batches and losses.

    Attributes:
        objective: ``pipo`` or ``regular``.
        phases: the PAD schedule, empty for none.
        seed: of the augmentation's draws.
        weights: of the losses.
        position: says how far training is now.
        check: called with each loss; raises if it is no number.
    """

    objective: str
    phases: Sequence[PadPhase]
    seed: int
    weights: LossWeights
    position: Callable[[], Position]
    check: Callable[[torch.Tensor], None]


@dataclass
class Loss(ModelOutput):
    """What ms-swift's trainer reads of a pass."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class PairTemplate(Qwen3_5Template):
    """ms-swift's Qwen3.5 template without its vision parts.

    `plan` must be set before the first batch.
    """

    plan: LessonPlan
    controls: ControlTokens
    support_padding_free = False
    # Losses are means already; True would sum them over the passes of one optimizer step.
    model_accepts_loss_kwargs = False

    def init_processor(self, processor: Any) -> None:
        """Take the tokenizer, and know its control tokens."""
        super().init_processor(processor)
        if processor is not None:
            self.controls = ControlTokens(self.tokenizer, also=_SLOTS)

    def _encode(self, inputs: Any) -> dict[str, Any]:
        encoded: dict[str, Any] = Template._encode(self, inputs)
        return encoded

    def _swift_prepare_inputs(self, inputs: Any) -> None:
        """Let answers begin behind the ``<think>`` line: the prompt of generation ends with it, so it has no loss.

        It also becomes a text of its own, so that the tokens of prompt and answer meet there as they do in decoding.
        """
        inputs.messages = [self.controls.hide(message) for message in inputs.messages]
        if inputs.system is not None:
            inputs.system = self.controls.hide({"content": inputs.system})["content"]
        super()._swift_prepare_inputs(inputs)
        for message in inputs.messages:
            content = message["content"]
            if message["role"] == "assistant" and isinstance(content, str) and content.startswith(THINK):
                message["content"] = [THINK, content.removeprefix(THINK)]
                message["loss"] = [False, None]

    def _tokenize(self, context: Any, **kwargs: Any) -> list[int]:
        """Return the text's tokens, those of prompts in decoding."""
        return self.controls.encode(context)

    @staticmethod
    def _split_special_tokens(contexts: list[Any], scales: list[float]) -> tuple[list[Any], list[float]]:
        """Leave texts whole: the marks of images and sounds mean nothing to a text model."""
        return contexts, scales

    def _data_collator(self, batch: list[Row], *, padding_to: int | None = None) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels``, ``[B, T]``, and ``real_tokens``, their number without any PAD."""
        pad_id: int = self.tokenizer.pad_token_id
        if self.plan.objective == "pipo":
            collated = collate_pairs([self._lay_out(row, pad_id) for row in batch], pad_id=pad_id)
        else:
            collated = collate_regular([(row.ids, row.labels) for row in batch], pad_id=pad_id)
        return {**collated._asdict(), "real_tokens": sum(row.ids.size for row in batch)}

    def _lay_out(self, row: Row, pad_id: int) -> PairedRow:
        if not row.learn or not self.plan.phases:
            return pair(row.ids, row.labels, pad_id=pad_id)
        position = self.plan.position()
        phase = choose_phase(self.plan.phases, position.progress)
        return augment(row.ids, row.labels, phase=phase, seed=self.plan.seed, epoch=position.epoch, pad_id=pad_id)

    def compute_sft_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None, trainer: Any = None
    ) -> Loss:
        """Return the loss, computed inside the wrapped model's call, and put the figures where the log finds them."""
        real_tokens = inputs.pop("real_tokens")
        outputs: PIPOOutput = model(
            input_ids=inputs["input_ids"],
            labels=inputs["labels"],
            objective=self.plan.objective,
            loss_weights=self.plan.weights,
        )
        if model.training and outputs.loss is not None:
            self.plan.check(outputs.loss)
        metrics = trainer.custom_metrics["train" if model.training else "eval"]
        log_figures(outputs, metrics)
        if model.training:
            metrics["tokens_per_second"].update(real_tokens)
        return Loss(loss=outputs.loss)


def log_figures(outputs: PIPOOutput, metrics: Mapping[str, Any]) -> None:
    """Put the losses and, for pairs, what the confidence head says where the next row of the log finds them."""
    for name, value in _figures(outputs).items():
        metrics[name].update(value)
    if outputs.confidence is not None and CALIBRATION in metrics:
        metrics[CALIBRATION].update(outputs.confidence, outputs.acceptance)


def _figures(outputs: PIPOOutput) -> Mapping[str, torch.Tensor]:
    """Return scalars."""
    names = ("backbone_loss", "mtp_loss", "confidence_loss", "confidence_mean", "confidence_target_mean")
    figures = {name: value for name in names if (value := getattr(outputs, name)) is not None}
    if outputs.confidence is not None and outputs.confidence.numel():
        for threshold in ACCEPTANCE_AT:
            figures[f"acceptance_{threshold}"] = (outputs.confidence >= threshold).float().mean()
    return figures
