"""Qwen's chat format for text as ms-swift's template hooks, and what the templates of all trainings share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from swift.template import Template
from swift.template.templates.qwen import Qwen3_5Template
from transformers.utils.generic import ModelOutput
from typing_extensions import override

from pipo_core.chat import ControlTokens
from pipo_core.model import PIPOOutput
from pipo_core.train.rows import THINK

ACCEPTANCE_AT = (0.5, 0.8, 0.9, 0.95)
"""Thresholds τ for which training reports the share of drafts that would be kept."""

CALIBRATION = "calibration"
"""Name of the `GateMetric` among the trainer's metrics; a training of the uncompressed model has none."""

_PLACEHOLDERS = ("{{SYSTEM}}", "{{QUERY}}", "{{RESPONSE}}", "{{ROUND0}}", "{{ROUND1}}")
"""Texts that ms-swift would replace wherever they occur, also in messages."""


@dataclass
class TrainingLoss(ModelOutput):
    """What ms-swift's trainer reads of a micro-batch's forward computation."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class PairTemplate(Qwen3_5Template):
    """ms-swift's Qwen3.5 template without images and sounds.

    Subclasses collate batches (`_data_collator`) and compute the loss (`compute_sft_loss`).
    """

    controls: ControlTokens
    support_padding_free = False
    # Losses are means; with True, the Trainer would sum them over the micro-batches of an optimizer step.
    model_accepts_loss_kwargs = False

    @override
    def init_processor(self, processor: Any) -> None:
        """Take the tokenizer, and find its control tokens."""
        super().init_processor(processor)
        if processor is not None:
            self.controls = ControlTokens(self.tokenizer, also=_PLACEHOLDERS)

    @override
    def _encode(self, inputs: Any) -> dict[str, Any]:
        """Encode text alone: Qwen3.5's own `_encode` computes positions of images."""
        encoded: dict[str, Any] = Template._encode(self, inputs)  # noqa: SLF001 - the class above the parent
        return encoded

    @override
    def _swift_prepare_inputs(self, inputs: Any) -> None:
        """Split ``<think>`` off the answers, without loss, because the generation prompt ends with it.

        As a text of its own it is tokenized by itself, so the tokens around it are those of decoding.
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

    @override
    def _tokenize(self, context: Any, **kwargs: Any) -> list[int]:
        """Return the tokens of a text, the same as in decoding."""
        return self.controls.encode(context)

    @staticmethod
    def _split_special_tokens(contexts: list[Any], scales: list[float]) -> tuple[list[Any], list[float]]:
        """Return the texts unsplit: marks of images and sounds have no meaning in a text model."""
        return contexts, scales


def log_figures(outputs: PIPOOutput, metrics: Mapping[str, Any]) -> None:
    """Add a micro-batch's losses and, for the pair model, its drafts' confidence to the trainer's metrics.

    Args:
        outputs: of the micro-batch.
        metrics: ``trainer.custom_metrics`` of training or of validation.
    """
    for name, value in _scalars(outputs).items():
        metrics[name].update(value)
    if outputs.confidence is not None and CALIBRATION in metrics:
        metrics[CALIBRATION].update(outputs.confidence, outputs.acceptance)


def _scalars(outputs: PIPOOutput) -> Mapping[str, torch.Tensor]:
    """Return the scalars of a micro-batch by name, and the shares of drafts that thresholds would keep."""
    names = ("backbone_loss", "mtp_loss", "confidence_loss", "confidence_mean", "confidence_target_mean")
    scalars = {name: value for name in names if (value := getattr(outputs, name)) is not None}
    if outputs.confidence is not None and outputs.confidence.numel():
        for threshold in ACCEPTANCE_AT:
            scalars[f"acceptance_{threshold}"] = (outputs.confidence >= threshold).float().mean()
    return scalars
