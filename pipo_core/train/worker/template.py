"""What the templates of all trainings, ms-swift's hooks, share: the layout of an example and the logged figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from swift.template.templates.qwen import Qwen3_5Template
from transformers.utils.generic import ModelOutput
from typing_extensions import override

from pipo_core.chat import encode_answered
from pipo_core.data.augment import IGNORED
from pipo_core.model import PIPOOutput

ACCEPTANCE_AT = (0.5, 0.8, 0.9, 0.95)
"""Thresholds τ for which training reports the share of drafts that would be kept."""

CALIBRATION = "calibration"
"""Name of the `GateMetric` among the trainer's metrics; a training of the uncompressed model has none."""


@dataclass
class TrainingLoss(ModelOutput):
    """What ms-swift's trainer reads of a micro-batch's forward computation."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class PairTemplate(Qwen3_5Template):
    """ms-swift's hooks for batches and losses. The layout of a conversation is that of decoding, see `chat.layout`.

    Subclasses collate batches (`_data_collator`) and compute the loss (`compute_sft_loss`).
    """

    support_padding_free = False
    # Losses are means; with True, the Trainer would sum them over the micro-batches of an optimizer step.
    model_accepts_loss_kwargs = False

    @override
    def encode(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels`` of a conversation whose last turn is learned.

        Raises:
            UsageError: if the chat template fails on it.
        """
        prompt, answer = encode_answered(self.tokenizer, inputs["messages"])
        return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


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
