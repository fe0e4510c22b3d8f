"""What the pair model takes beside its batches, and what it returns: loss weights, teacher's targets, outputs."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.utils.generic import ModelOutput

from pipo_core.model.distillation import DivergenceMode, Head, ListedTokens


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms (paper, equation of section 4.1) and the LM head's chunk size.

    Attributes:
        mtp: λ_mtp, weight of the draft's loss.
        confidence: λ_conf, weight of the confidence head's binary cross-entropy.
        chunk: positions projected to the vocabulary at once; None for what the free memory allows (`chunk_size`).
    """

    mtp: float = 1.0
    confidence: float = 1.0
    chunk: int | None = None


class TeacherTargets(NamedTuple):
    """The teacher's hidden states and LM head for a batch ``[B, T]``, and the divergence to them (paper, section 4.2).

    Attributes:
        hidden: ``[B, T, H_teacher]``, the teacher's hidden state after each position's token. The teacher does not see
            PADs; a PAD's position has the state after the first token of its slot.
        head: the teacher's LM head, ``[V, H_teacher]``.
        mode: form of the divergence, see `pipo_core.model.distillation`.
        temperature: divides both models' logits.
        top_k: ``k`` of the ``topk`` forms.
    """

    hidden: torch.Tensor
    head: torch.Tensor
    mode: DivergenceMode = "topk"
    temperature: float = 1.0
    top_k: int = 32

    def at(self, places: slice, valid: torch.Tensor) -> Head:
        """Return what it says at some positions, in the order of ``valid``.

        Args:
            places: of the batch's positions, ``S`` of them.
            valid: those of them that are wanted, ``[B, S]``.
        """
        return Head(self.hidden[:, places][valid], self.head)


class ListedTargets(NamedTuple):
    """The log-probabilities that a teacher behind a URL names for a batch ``[B, T]``: a few tokens at each position.

    Attributes:
        ids: ``[B, T, K]``: its likeliest tokens after each position's token, and the one that follows in the text. A
            PAD's position has those after the first token of its slot.
        logprobs: ``[B, T, K]``.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor

    @property
    def mode(self) -> DivergenceMode:
        """The form of the divergence."""
        return "topk"

    @property
    def temperature(self) -> float:
        """Divides both models' logits: servers tell log-probabilities of their own distribution."""
        return 1.0

    @property
    def top_k(self) -> int:
        """How many tokens are listed."""
        return self.ids.shape[-1]

    def at(self, places: slice, valid: torch.Tensor) -> ListedTokens:
        """Return what it says at some positions; see `TeacherTargets.at`."""
        return ListedTokens(self.ids[:, places][valid], self.logprobs[:, places][valid])


@dataclass(frozen=True)
class PairOutput:
    """All tensors of a teacher-forced pass over ``S`` slots; the draft's have ``S − 1`` slots.

    Attributes:
        latents: ``[B, S, H]``, the compressor's ``z_i``.
        backbone_hidden: ``[B, S, H]``, ``h_i`` after the final norm.
        backbone_logits: ``[B, S, V]``, of ``t_{2i+2}``.
        mtp_hidden: ``[B, S−1, H]``, ``m_i``.
        mtp_logits: ``[B, S−1, V]``, of ``t_{2i+3}``.
        confidence: ``[B, S−1]``, ``c_i`` in fp32.
    """

    latents: torch.Tensor
    backbone_hidden: torch.Tensor
    backbone_logits: torch.Tensor
    mtp_hidden: torch.Tensor
    mtp_logits: torch.Tensor
    confidence: torch.Tensor


@dataclass
class PIPOOutput(ModelOutput):
    """Losses of a micro-batch. ``loss`` carries the gradient, everything else is detached.

    Attributes:
        loss: weighted sum of the losses below.
        backbone_loss: of the first tokens.
        mtp_loss: of the drafts; None where λ_mtp is 0 for ``regular``.
        confidence_loss: of the confidence head; this and what follows is None for ``regular``.
        confidence_mean: mean of ``confidence``.
        confidence_target_mean: mean of ``acceptance``.
        confidence: ``c_i`` of the labelled drafts, ``[N]``.
        acceptance: what the confidence head should predict for each, ``[N]``.
    """

    loss: torch.Tensor | None = None
    backbone_loss: torch.Tensor | None = None
    mtp_loss: torch.Tensor | None = None
    confidence_loss: torch.Tensor | None = None
    confidence_mean: torch.Tensor | None = None
    confidence_target_mean: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    acceptance: torch.Tensor | None = None
