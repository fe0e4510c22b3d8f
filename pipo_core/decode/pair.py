"""Pair decoding: read a slot of two tokens, write a slot of one or two (paper, section 3; docs/algorithm.md).

One step for slot ``i``::

    1. z_i = compressor([e(t_{2i}); e(t_{2i+1})]),  h_i = backbone(z_{≤i})
    2. p1 = LMHead(h_i),                            sample t_{2i+2}
    3. m_i = MTP(h_i, e(t_{2i+2})),                 over all slots ≤ i
    4. c_i = confidence(h_i, m_i),                  keep the draft if c_i ≥ τ
    5. p2 = LMHead(m_i) for kept drafts only,       sample t_{2i+3}; else a PAD takes its place

The confidence needs ``h`` and ``m`` alone, so the gate comes before the second projection and a rejected draft is
never projected to the vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from typing_extensions import override

from pipo_core.decode.backbone import compress, decode_pass, gate, lm_head, mtp_pass
from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.end_ids import EndIds
from pipo_core.decode.graphs import PassRunner, run_plainly
from pipo_core.decode.method import Method, RunningState, StepLoad, StepOutput
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.sampling import Sampler
from pipo_core.errors import UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import ModelSizes
from pipo_core.recipes.methods import DEFAULT_TAU, METHODS


@dataclass
class PairState(RunningState):
    """The running sequences.

    Attributes:
        cache: the backbone's, over slots.
        mtp_cache: the MTP block's keys and values over the same slots; None if τ ≥ 1, because then no draft is kept
            and the block does not run.
        ends: the ids that end each sequence.
        pair: the slot that each sequence reads next, ``[B, 2]``.
        tau: each sequence's confidence threshold, ``[B]``.
    """

    mtp_cache: SequenceCache | None
    ends: EndIds
    pair: torch.Tensor
    tau: torch.Tensor


@dataclass(frozen=True)
class PairMethod(Method[PairState]):
    """A slot of one or two tokens a step.

    Attributes:
        tau: confidence threshold of sequences that have none of their own; ``τ ≤ 0`` keeps every draft, ``τ ≥ 1`` none.
        draft_vocab: the ids that drafts come from; None for all.
        acceptance: for measurements, the share of drafts to keep, evenly spread; None to keep them by threshold.
        sample_rejected: whether rejected drafts are sampled, too, because distillation learns from them.

    Raises:
        UsageError: if τ is not a number.
    """

    spec = METHODS["pipo"]

    tau: float = field(default=DEFAULT_TAU, kw_only=True)
    draft_vocab: DraftVocab | None = field(default=None, kw_only=True)
    acceptance: float | None = field(default=None, kw_only=True)
    sample_rejected: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not math.isfinite(self.tau):
            raise UsageError(f"tau = {self.tau} is not a number")

    @property
    def has_mtp_cache(self) -> bool:
        """Whether drafts are made at all."""
        return self.tau < 1

    @property
    @override
    def takes_tau(self) -> bool:
        """Whether drafts are made, and kept by a threshold."""
        return self.has_mtp_cache and self.acceptance is None

    @override
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[PairState, StepOutput]:
        logits = lm_head(self.model, read.hidden)
        state = PairState(
            read.open_cache(),
            sampler,
            mtp_cache=read.open_mtp_cache() if self.has_mtp_cache else None,
            ends=EndIds(read.settings.end_ids, len(logits), self.model.device),
            pair=torch.empty(0, 2, dtype=torch.long),
            tau=self._thresholds(read.settings.tau, len(logits)),
        )
        return state, self._write(state, run_plainly, read.hidden, logits)

    @override
    @torch.inference_mode()
    def step(self, state: PairState) -> StepOutput:
        """Advance every sequence by one slot."""
        state.cache.reserve()
        hidden, logits = self.run(_read, self.model, state.cache, state.pair)
        state.cache.advance()
        return self._write(state, self.run, hidden, logits)

    def _write(self, state: PairState, run: PassRunner, hidden: torch.Tensor, logits: torch.Tensor) -> StepOutput:
        """Write the next slot from ``h_i``, ``[B, H]``, and the logits of its first token: steps 2 to 5 above."""
        first = state.sampler.sample(logits, place=0)
        state.sampler.count(first)
        draft = torch.full_like(first, self.pad_id)
        kept = torch.zeros_like(first, dtype=torch.bool)
        confidence = None
        if state.mtp_cache is not None:
            state.mtp_cache.reserve()
            drafted, confidence = run(_draft, self.model, state.mtp_cache, first, hidden)
            confidence = confidence.clone()  # it outlives the next run
            state.mtp_cache.advance()
            ended = state.ends.contain(first)
            kept = self._keeps(state, confidence) & ~ended
            # The gate knows nothing of grammars, so it cannot tell how good a bound draft is.
            kept = kept if (bound := state.sampler.bound) is None else kept & ~bound
            wanted = ~ended if self.sample_rejected else kept
            draft = self._sample_drafts(state, run, drafted, wanted)
            state.sampler.count(draft, kept)
        state.sampler.advance()
        state.pair = torch.stack([first, draft.where(kept, self.pad_id)], dim=1)
        return StepOutput(
            torch.stack([first, draft], dim=1),
            1 + kept.long(),
            offered=int(state.mtp_cache is not None),
            confidence=confidence,
            scores=state.sampler.take_scores(),
        )

    def _thresholds(self, named: Sequence[float | None], count: int) -> torch.Tensor:
        """Return τ of each sequence, ``[B]``; infinite where it is 1 or more, for a confidence may be exactly 1."""
        found = [self.tau if one is None else one for one in named or [None] * count]
        return torch.tensor([one if one < 1 else math.inf for one in found], device=self.model.device)

    def _keeps(self, state: PairState, confidence: torch.Tensor) -> torch.Tensor:
        """Return the gate's decision, ``[B]``: ``c_i ≥ τ``, or the slot's turn where a measurement fixes the share."""
        if self.acceptance is None:
            return confidence >= state.tau
        return state.sampler.spread(self.acceptance) > 0

    def _sample_drafts(
        self, state: PairState, run: PassRunner, drafted: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Return ``t_{2i+3}`` from ``m_i``, ``[B, H]``, where it is ``wanted [B]``, and PADs elsewhere, ``[B]``."""
        few = self.draft_vocab
        ids = None if few is None else few.ids
        project = lm_head if few is None else few.logits
        if not _can_choose(drafted):
            sampled = state.sampler.sample(run(project, self.model, drafted), place=1, vocabulary=ids)
            return sampled.where(wanted, self.pad_id)
        draft = torch.full_like(wanted, self.pad_id, dtype=torch.long)
        indices = wanted.nonzero().squeeze(1)
        if indices.numel():
            logits = run(project, self.model, drafted[indices])
            draft[indices] = state.sampler.sample(logits, place=1, indices=indices, vocabulary=ids)
        return draft

    @override
    @classmethod
    def step_weights(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``layers + compressor + mtp + confidence + head + s·draft head``.

        ``s`` is how often a step projects any draft: the share of drafts kept at batch 1, and 1 beyond.
        """
        draft_head = sizes.head if load.draft_vocab is None else load.draft_vocab * sizes.hidden
        projects = load.acceptance if load.batch == 1 else float(load.acceptance > 0)
        parts = sizes.layers + sizes.compressor + sizes.mtp + sizes.confidence + sizes.head
        return parts + projects * draft_head

    @override
    @classmethod
    def step_products(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return each weight that a step reads, once."""
        return cls.step_weights(sizes, replace(load, batch=1))

    @override
    @classmethod
    def step_attention(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``(A + A_mtp) · context/2``."""
        return (sizes.attention + sizes.attention_mtp) * load.context / 2

    @override
    @classmethod
    def step_cache_bytes(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``KV(context/2) + KV_mtp(context/2)``."""
        return (sizes.kv + sizes.kv_mtp) * load.context / 2


def _read(model: Qwen3_5ForCausalPIPO, cache: SequenceCache, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``h_i``, ``[B, H]``, and the logits of ``p1``, ``[B, V]``: steps 1 and 2 above."""
    latents = compress(model, model.embed(pair))  # z_i
    hidden = decode_pass(model, latents, cache)  # h_i
    return hidden, lm_head(model, hidden)


def _draft(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, first: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_i``, ``[B, H]``, and ``c_i``, ``[B]``; the block's keys and values of slot ``i`` are stored."""
    drafted = mtp_pass(model, model.embed(first), hidden, cache)
    return drafted, gate(model, hidden, drafted)


def _can_choose(drafted: torch.Tensor) -> bool:
    """Return whether only the wanted ones of ``[B, H]`` are projected.

    Only the device knows which ones are wanted. For a single sequence the synchronisation pays, because it can save
    half of the LM heads' work; on a CPU there is none. Several sequences on a GPU are all projected.
    """
    return not drafted.is_cuda or len(drafted) == 1
