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
from typing import Any

import torch

from pipo_core.decode.backbone import compress, decode_pass, gate, lm_head, mtp_pass
from pipo_core.decode.cache import RowCache
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.graphs import PassRunner, run_plainly
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
        draw_all: whether rejected drafts are drawn too: distillation learns from them.
        run: how steps run their passes. A prefill runs its own plainly: its buffers are not yet those of the steps.
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
        run: PassRunner = run_plainly,
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
        self.run = run
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
    options: dict[str, Any] = {"draw_all": draw_all, "run": settings.run}
    state = PairState(cache, mtp_cache, sampler, tau, settings.pad_id, ends, draft_vocab, acceptance, **options)
    return state, _emit(model, state, run_plainly, read.hidden, lm_head(model, read.hidden))


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: PairState) -> Emitted:
    """Advance every row by one slot."""
    state.cache.reserve()
    hidden, logits = state.run(_read, model, state.cache, state.pair)
    state.cache.advance()
    return _emit(model, state, state.run, hidden, logits)


def _read(model: Qwen3_5ForCausalPIPO, cache: RowCache, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``h_i``, ``[B, H]``, and the logits of ``p1``, ``[B, V]``: steps 1 and 2 above."""
    latents = compress(model, model.embed(pair))  # z_i
    hidden = decode_pass(model, latents, cache)  # h_i
    return hidden, lm_head(model, hidden)


def _draft(
    model: Qwen3_5ForCausalPIPO, cache: RowCache, first: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_i``, ``[B, H]``, and ``c_i``, ``[B]``; the block's keys and values of slot ``i`` are stored."""
    drafted = mtp_pass(model, model.embed(first), hidden, cache)
    return drafted, gate(model, hidden, drafted)


def _emit(
    model: Qwen3_5ForCausalPIPO, state: PairState, run: PassRunner, hidden: torch.Tensor, logits: torch.Tensor
) -> Emitted:
    """Write the next slot from ``h_i``, ``[B, H]``, and the logits of its first token: steps 2 to 5 above."""
    first = state.sampler.draw(logits, place=0)
    state.sampler.observe(first)
    draft = torch.full_like(first, state.pad_id)
    kept = torch.zeros_like(first, dtype=torch.bool)
    confidence = None
    if state.mtp_cache is not None:
        state.mtp_cache.reserve()
        drafted, confidence = run(_draft, model, state.mtp_cache, first, hidden)
        confidence = confidence.clone()  # it outlives the next run
        state.mtp_cache.advance()
        ended = (first[:, None] == state.ends).any(dim=1)
        kept = _is_kept(state, confidence) & ~ended
        draft = _drawn_drafts(model, state, run, drafted, ~ended if state.draw_all else kept)
        state.sampler.observe(draft, kept)
    state.sampler.advance()
    state.pair = torch.stack([first, draft.where(kept, state.pad_id)], dim=1)
    return Emitted(
        torch.stack([first, draft], dim=1),
        1 + kept.long(),
        offered=int(state.mtp_cache is not None),
        confidence=confidence,
    )


def _drawn_drafts(
    model: Qwen3_5ForCausalPIPO, state: PairState, run: PassRunner, drafted: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Return ``t_{2i+3}`` from ``m_i``, ``[B, H]``, where it is ``wanted [B]``, and PADs elsewhere, ``[B]``."""
    few = state.draft_vocab
    ids = None if few is None else few.ids
    project = lm_head if few is None else few.logits
    if not _can_choose(drafted):
        drawn = state.sampler.draw(run(project, model, drafted), place=1, vocabulary=ids)
        return drawn.where(wanted, state.pad_id)
    draft = torch.full_like(wanted, state.pad_id, dtype=torch.long)
    rows = wanted.nonzero().squeeze(1)
    if rows.numel():
        logits = run(project, model, drafted[rows])
        draft[rows] = state.sampler.draw(logits, place=1, rows=rows, vocabulary=ids)
    return draft


def _can_choose(drafted: torch.Tensor) -> bool:
    """Whether only the wanted rows of ``[B, H]`` are projected.

    Which they are is known on the device alone. For a single row it is worth waiting for, since half of the LM heads'
    work may fall away, and a CPU has nothing to wait for. Several rows on a GPU are projected whether wanted or not.
    """
    return not drafted.is_cuda or len(drafted) == 1


def _is_kept(state: PairState, confidence: torch.Tensor) -> torch.Tensor:
    """Return the gate's decision, ``[B]``: ``c_i ≥ τ``, or a coin where a measurement fixes the share."""
    if state.acceptance is None:
        return confidence >= state.tau
    return state.sampler.noise(place=2).squeeze(1) < state.acceptance


def _widened(ends: torch.Tensor, width: int) -> torch.Tensor:
    """Return the end ids ``[B, E]`` with -1 in the columns up to ``width``."""
    return torch.nn.functional.pad(ends, (0, width - ends.shape[1]), value=-1)
