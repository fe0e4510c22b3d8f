"""Pair decoding: read a slot of two tokens, write a slot of one or two (paper, section 3; docs/algorithm.md).

One step for slot ``i``::

    1. z_i = compressor([e(t_{2i}); e(t_{2i+1})]),  h_i = backbone(z_{≤i})
    2. p1 = LMHead(h_i),                            sample t_{2i+2}
    3. m_i = MTP(h_i, e(t_{2i+2})),                 over all slots ≤ i
    4. c_i = confidence(h_i, m_i),                  keep the draft if c_i ≥ τ
    5. p2 = LMHead(m_i) for kept rows only,         sample t_{2i+3}; else PAD stands in its place

The confidence needs ``h`` and ``m`` alone, so the gate comes before the second projection and a rejected draft is
never projected to the vocabulary.
"""

from collections.abc import Sequence

import torch

from pipo_core.decode.backbone import compress, decode_pass, gate, lm_head, mtp_pass
from pipo_core.decode.cache import RowCache
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings, end_table
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class PairState:
    """The running rows of pair decoding.

    Attributes:
        cache: the backbone's, over slots.
        mtp_cache: the MTP block's own keys and values over the same slots; None where τ ≥ 1, for then no draft is
            kept and the block need not run at all.
        sampler: sampling state.
        tau: confidence threshold; ``τ ≤ 0`` keeps every draft, ``τ ≥ 1`` none.
        pair: the slot that each row reads next, ``[B, 2]``.
        ends: ids that end a row, ``[B, E]``.
        draft_vocab: the ids that drafts come from; all where None.
        acceptance: for measuring, the share of drafts that is kept, whatever their confidence; None: as τ says.
        draw_all: whether rejected drafts are projected and drawn too: distillation learns from them.
    """

    def __init__(
        self,
        cache: RowCache,
        mtp_cache: RowCache | None,
        sampler: RowSampler,
        tau: float,
        pad_id: int,
        ends: torch.Tensor,
        draft_vocab: DraftVocab | None = None,
        acceptance: float | None = None,
        *,
        draw_all: bool = False,
    ) -> None:
        self.cache = cache
        self.mtp_cache = mtp_cache
        self.sampler = sampler
        self.tau = tau
        self.pad_id = pad_id
        self.ends = ends
        self.draft_vocab = draft_vocab
        self.acceptance = acceptance
        self.draw_all = draw_all
        self.pair = torch.empty(0, 2, dtype=torch.long)

    def join(self, other: "PairState") -> None:
        """Append the rows of ``other``, which must have the same τ and draft vocabulary."""
        self.cache.join(other.cache)
        if self.mtp_cache is not None and other.mtp_cache is not None:
            self.mtp_cache.join(other.mtp_cache)
        self.sampler.join(other.sampler)
        self.pair = torch.cat([self.pair, other.pair])
        width = max(self.ends.shape[1], other.ends.shape[1])
        self.ends = torch.cat([_widened(self.ends, width), _widened(other.ends, width)])

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        self.cache.keep(rows)
        if self.mtp_cache is not None:
            self.mtp_cache.keep(rows)
        self.sampler.keep(rows)
        self.pair = self.pair[rows]
        self.ends = self.ends[rows]


@torch.inference_mode()
def prefill(
    model: Qwen3_5ForCausalPIPO,
    prompts: Sequence[Sequence[int]],
    settings: RowSettings,
    tau: float,
    draft_vocab: DraftVocab | None = None,
    acceptance: float | None = None,
    draw_all: bool = False,
    *,
    reader: PromptReader | None = None,
) -> tuple[PairState, Emitted]:
    """Return the rows of the prompts and the first slot of each, draft included; ``reader`` may have read them."""
    read = (reader or PromptReader(model, prompts, settings, width=2, with_mtp=tau < 1)).read()
    cache = read.open_cache()
    mtp_cache = read.open_mtp_cache() if tau < 1 else None
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    ends = end_table(settings.end_ids, len(prompts), model.device)
    state = PairState(cache, mtp_cache, sampler, tau, settings.pad_id, ends, draft_vocab, acceptance, draw_all=draw_all)
    return state, _emit(model, state, read.hidden)


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: PairState) -> Emitted:
    """Advance every row by one slot."""
    state.cache.reserve()
    latents = compress(model, model.embed(state.pair))  # z_i
    hidden = decode_pass(model, latents, state.cache)  # h_i
    state.cache.advance()
    return _emit(model, state, hidden)


def _emit(model: Qwen3_5ForCausalPIPO, state: PairState, hidden: torch.Tensor) -> Emitted:
    """Write the next slot from ``h_i``, ``[B, H]``: steps 2 to 5 above."""
    first = state.sampler.draw(lm_head(model, hidden), place=0)
    state.sampler.observe(first)
    draft = torch.full_like(first, state.pad_id)
    kept = torch.zeros_like(first, dtype=torch.bool)
    confidence = None
    if state.mtp_cache is not None:
        drafted = _run_mtp(model, state.mtp_cache, first, hidden)  # m_i
        confidence = gate(model, hidden, drafted)  # c_i
        ended = (first[:, None] == state.ends).any(dim=1)
        kept = _is_kept(state, confidence) & ~ended
        rows = (~ended if state.draw_all else kept).nonzero().squeeze(1)
        if rows.numel():
            few = state.draft_vocab
            logits = lm_head(model, drafted[rows]) if few is None else few.logits(model, drafted[rows])
            ids = None if few is None else few.ids
            draft[rows] = state.sampler.draw(logits, place=1, rows=rows, vocabulary=ids)
            written = kept.nonzero().squeeze(1) if state.draw_all else rows
            state.sampler.observe(draft[written], written)
    state.sampler.advance()
    state.pair = torch.stack([first, draft.where(kept, state.pad_id)], dim=1)
    return Emitted(
        torch.stack([first, draft], dim=1),
        1 + kept.long(),
        offered=int(state.mtp_cache is not None),
        confidence=confidence,
    )


def _is_kept(state: PairState, confidence: torch.Tensor) -> torch.Tensor:
    """Return the gate's decision, ``[B]``: ``c_i ≥ τ``, or a coin where a measurement fixes the share."""
    if state.acceptance is None:
        return confidence >= state.tau
    return state.sampler.noise(place=2).squeeze(1) < state.acceptance


def _run_mtp(model: Qwen3_5ForCausalPIPO, cache: RowCache, first: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return ``m_i``, ``[B, H]``, and store the block's keys and values of slot ``i``."""
    cache.reserve()
    drafted = mtp_pass(model, model.embed(first), hidden, cache)
    cache.advance()
    return drafted


def _widened(ends: torch.Tensor, width: int) -> torch.Tensor:
    """Return the end ids ``[B, E]`` with -1 in the columns up to ``width``."""
    return torch.nn.functional.pad(ends, (0, width - ends.shape[1]), value=-1)
