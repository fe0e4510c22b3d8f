"""The pair model: a stock Qwen3.5 text model with a compressor, an MTP block and a confidence head."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers.generation import GenerationMixin
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5PreTrainedModel, Qwen3_5TextModel

from pipo_core.model.chunk_size import MOST, MOST_OF_DIVERGENCE, positions_at_once
from pipo_core.model.compressor import LinearCompressor, MLPCompressor, build_compressor
from pipo_core.model.confidence import ConfidenceHead
from pipo_core.model.distillation import DistillationLoss, Head, distillation_loss
from pipo_core.model.losses import IGNORED, HeadLoss, confidence_loss, head_loss
from pipo_core.model.mtp import MTPBlock
from pipo_core.model.outputs import ListedTargets, LossWeights, PairOutput, PIPOOutput, TeacherTargets
from pipo_core.model.slots import pair_up
from pipo_core.model.writing import write_weights

Objective = Literal["pipo", "regular", "distill"]


class TextBackbone(nn.Module):
    """The stock text model under its name in Qwen3.5 checkpoints, so that names in memory are names on disk."""

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        self.language_model = Qwen3_5TextModel(config)


class Qwen3_5ForCausalPIPO(Qwen3_5PreTrainedModel, GenerationMixin):
    """Reads two tokens and writes up to two tokens a step (paper, section 3).

    The same weights also run uncompressed (`forward_regular`), as the base model does.
    """

    config: Qwen3_5TextConfig
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__(config)
        self.model = TextBackbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.compressor = build_compressor(config)
        self.mtp = MTPBlock(config)
        self.confidence_head = ConfidenceHead(config)
        self.fresh_parts: tuple[str, ...] = ()  # parts that a checkpoint did not have, set by load_checkpoint
        self.compiled_steps = False  # set by pipo_core.decode.backbone.compile_steps
        self.post_init()

    @property
    def text_model(self) -> Qwen3_5TextModel:
        """The stock backbone."""
        return self.model.language_model

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding, shared by backbone, compressor and MTP block."""
        embedding: nn.Module = self.text_model.embed_tokens
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.text_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """Return the LM head, shared by backbone and MTP block."""
        return self.lm_head

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write weights and configuration in the ``pipo`` layout (safetensors).

        transformers' own writer would rename the weights; options other than ``state_dict`` do not apply.
        """
        write_weights(self, Path(save_directory), layout="pipo", state=options.get("state_dict"))

    # ------------------------------------------------------------------ parts

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return token embeddings ``[..., H]`` of ids ``[...]``."""
        embeddings: torch.Tensor = self.text_model.embed_tokens(input_ids)
        return embeddings

    def compress(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return latents ``z_i = compressor([e(t_{2i}); e(t_{2i+1})])``, ``[B, S, H]``, of ids ``[B, T]``, T even."""
        latents: torch.Tensor = self.compressor(self.embed(pair_up(input_ids)))
        return latents

    def run_backbone(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return final-normed hidden states ``[B, S, H]`` of embeddings or latents ``[B, S, H]``, without a cache.

        Rows are right-padded, and every layer is causal, so no mask is needed.
        """
        hidden: torch.Tensor = self.text_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return hidden

    # ------------------------------------------------------------------ whole passes

    def forward_pairs(self, input_ids: torch.Tensor) -> PairOutput:
        """Run the teacher-forced pair pass with all logits: for tests, analysis and short inputs.

        Args:
            input_ids: ``[B, T]``, T even; PADs only in second places.

        Raises:
            ValueError: if ``T`` is odd.
        """
        latents = self.compress(input_ids)
        hidden = self.run_backbone(latents)
        mtp_hidden = self._draft(input_ids, hidden)
        confidence = self.confidence_head(hidden[:, :-1], mtp_hidden).sigmoid()
        return PairOutput(latents, hidden, self.lm_head(hidden), mtp_hidden, self.lm_head(mtp_hidden), confidence)

    def forward_regular(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return next-token logits ``[B, T, V]`` of the uncompressed model on ids ``[B, T]``."""
        logits: torch.Tensor = self.lm_head(self.run_backbone(self.embed(input_ids)))
        return logits

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        objective: Objective = "pipo",
        loss_weights: LossWeights | None = None,
        teacher: TeacherTargets | ListedTargets | None = None,
        draft_ids: torch.Tensor | None = None,
    ) -> PIPOOutput:
        """Return the training losses of a right-padded batch.

        Losses are computed here, inside the module's call, so that DDP and ZeRO wrappers see every gradient.

        Args:
            input_ids: ``[B, T]``; T even but for ``regular``.
            labels: ``[B, T]``, the ids themselves, -100 on the prompt, on PADs and on padding. For ``distill`` the
                tokens that the student sampled, rejected drafts included: their PADs have them as labels.
            objective: ``pipo``, ``distill``, or ``regular`` for the uncompressed model with its MTP head.
            loss_weights: λ's and chunk size; the paper's (1, 1) by default.
            teacher: its targets, for ``distill`` alone.
            draft_ids: the ids that drafts come from when the model decodes, ``[N]``; None for all. The gate's target
                is 0 where the draft has another id. Nothing else depends on them.

        Raises:
            ValueError: if ``distill`` has no ``teacher``, or the teacher has another vocabulary.
        """
        weights = loss_weights or LossWeights()
        if objective == "regular":
            return self._regular_losses(input_ids, labels, weights)
        if objective == "distill":
            return self._distillation_losses(input_ids, labels, weights, teacher, draft_ids)
        return self._pair_losses(input_ids, labels, weights, draft_ids)

    def _pair_losses(
        self, input_ids: torch.Tensor, labels: torch.Tensor, weights: LossWeights, draft_ids: torch.Tensor | None
    ) -> PIPOOutput:
        """``CE(p1, t_{2i+2}) + λ_mtp · CE(p2, t_{2i+3}) + λ_conf · BCE(c_i, p2(t_{2i+3}))`` (section 4.1)."""
        hidden = self.run_backbone(self.compress(input_ids))
        mtp_hidden = self._draft(input_ids, hidden)
        hidden = hidden[:, :-1]
        first = self._head_loss(hidden, labels[:, 2::2], weights)
        draft = self._head_loss(mtp_hidden, labels[:, 3::2], weights)
        logits = self.confidence_head(hidden.detach(), mtp_hidden.detach())[draft.valid]
        target = _where_drafted(draft.label_logprob.exp(), labels[:, 3::2][draft.valid], draft_ids)
        return _pair_output(first.loss, draft.loss, logits, target, weights)

    def _distillation_losses(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        weights: LossWeights,
        teacher: TeacherTargets | ListedTargets | None,
        draft_ids: torch.Tensor | None,
    ) -> PIPOOutput:
        """``KL(p1 ‖ p_t) + λ_mtp · KL(p2 ‖ p_t) + λ_conf · BCE(c_i, min(1, p_t/p2))`` (section 4.2).

        At slot ``i`` the backbone's head predicts position ``2i + 2`` from the text up to ``2i + 1``, and the draft
        position ``2i + 3`` from the text up to ``2i + 2``. The teacher is taken at those positions.
        """
        if teacher is None:
            raise ValueError("objective distill needs the teacher's targets")
        hidden = self.run_backbone(self.compress(input_ids))
        mtp_hidden = self._draft(input_ids, hidden)
        hidden = hidden[:, :-1]
        first = self._divergence(hidden, labels[:, 2::2], teacher, slice(1, -1, 2), weights)
        sampled_drafts = labels[:, 3::2]
        draft = self._divergence(mtp_hidden, sampled_drafts, teacher, slice(2, None, 2), weights)
        valid = sampled_drafts != IGNORED
        logits = self.confidence_head(hidden.detach(), mtp_hidden.detach())[valid]
        target = _where_drafted(draft.acceptance, sampled_drafts[valid], draft_ids)
        return _pair_output(first.loss, draft.loss, logits, target, weights)

    def _divergence(
        self,
        hidden: torch.Tensor,
        sampled: torch.Tensor,
        teacher: TeacherTargets | ListedTargets,
        places: slice,
        weights: LossWeights,
    ) -> DistillationLoss:
        """Return one head's divergence from the teacher, over its labelled positions.

        Args:
            hidden: the student's, ``[B, S, H]``.
            sampled: the tokens that the student sampled, ``[B, S]``; `IGNORED` where it sampled none.
            teacher: the batch's targets.
            places: the positions after whose text the head predicts, ``S`` of them.
            weights: for the chunk size.
        """
        valid = sampled != IGNORED
        weight = self.lm_head.weight
        return distillation_loss(
            Head(hidden[valid], weight),
            teacher.at(places, valid),
            sampled[valid],
            mode=teacher.mode,
            temperature=teacher.temperature,
            top_k=teacher.top_k,
            chunk=weights.chunk or positions_at_once(weight, most=MOST_OF_DIVERGENCE, bytes_each=12),
        )

    def _regular_losses(self, input_ids: torch.Tensor, labels: torch.Tensor, weights: LossWeights) -> PIPOOutput:
        """``CE(p(t_{t+1} | h_t)) + λ_mtp · CE(p(t_{t+2} | m_t))`` on the uncompressed model."""
        hidden = self.run_backbone(self.embed(input_ids))[:, :-1]
        next_token = self._head_loss(hidden, labels[:, 1:], weights)
        loss = next_token.loss
        mtp_loss = None
        if weights.mtp:
            mtp_hidden = self.mtp(self.embed(input_ids[:, 1:]), hidden)
            mtp_loss = self._head_loss(mtp_hidden[:, :-1], labels[:, 2:], weights).loss
            loss = loss + weights.mtp * mtp_loss
        return PIPOOutput(
            loss=loss,
            backbone_loss=next_token.loss.detach(),
            mtp_loss=None if mtp_loss is None else mtp_loss.detach(),
        )

    def _draft(self, input_ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return ``m_i = MTP(h_i, e(t_{2i+2}))``, ``[B, S−1, H]``: the last slot has no next first token yet."""
        drafted: torch.Tensor = self.mtp(self.embed(input_ids[:, 2::2]), hidden[:, :-1])
        return drafted

    def _head_loss(self, hidden: torch.Tensor, labels: torch.Tensor, weights: LossWeights) -> HeadLoss:
        weight = self.lm_head.weight
        chunk = weights.chunk or positions_at_once(weight, most=MOST, bytes_each=6)
        return head_loss(hidden, weight, labels, chunk=chunk)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise fresh modules. A compressor starts as the sum of its inputs (docs/algorithm.md)."""
        super()._init_weights(module)
        if isinstance(module, MLPCompressor | LinearCompressor):
            module.start_as_sum()


def _where_drafted(target: torch.Tensor, drafts: torch.Tensor, draft_ids: torch.Tensor | None) -> torch.Tensor:
    """Return the gate's targets, ``[N]``: 0 where the draft, ``[N]``, has an id that decoding cannot draft."""
    return target if draft_ids is None else target * torch.isin(drafts, draft_ids)


def _pair_output(
    first: torch.Tensor, draft: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, weights: LossWeights
) -> PIPOOutput:
    """Return the three losses, their weighted sum, and each draft's confidence beside its target.

    Args:
        first: the first tokens' loss.
        draft: the drafts' loss.
        logits: the confidence head's, ``[N]``.
        target: what it should predict, ``[N]``.
        weights: of the losses.
    """
    gate = confidence_loss(logits, target)
    return PIPOOutput(
        loss=first + weights.mtp * draft + weights.confidence * gate.loss,
        backbone_loss=first.detach(),
        mtp_loss=draft.detach(),
        confidence_loss=gate.loss.detach(),
        confidence_mean=gate.mean,
        confidence_target_mean=gate.target_mean,
        confidence=logits.detach().sigmoid(),
        acceptance=target.detach(),
    )
