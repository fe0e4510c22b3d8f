"""Speculative decoding with the model's own MTP head: a chain of drafts, verified in one pass; lossless.

The baseline ``eagle`` (SGLang's NEXTN). One step, with the pending token ``x_P`` drawn but not read yet::

    1. m_1 = MTP(h_{P−1}, e(x_P)),   d_1 = argmax LMHead(m_1)
       m_{j+1} = MTP(m_j, e(d_j)),   d_{j+1} = argmax LMHead(m_{j+1})
    2. h_P … h_{P+n} = backbone(x_P, d_1 … d_n), one pass over n + 1 positions
    3. for j = 0 … n: y ~ p_j = p(· | x_{≤P}, d_1 … d_j);  write y;  go on only while y = d_{j+1}

Step 3 is rejection sampling. A chain of single drafts has the draft distribution ``q = 1[y = d]``, so a draft is
accepted with ``min(1, p(d)/q(d)) = p(d)``, and else a token of the residual ``max(0, p − q)``, that is of ``p`` without
``d``, is written. Drawing from ``p`` and comparing with ``d`` does just that. The draw for the t-th token of an answer
uses the noise that regular decoding uses for it, so a seed gives the same text as there: equality in law, made visible.

Rejected drafts leave nothing behind: keys and values beyond the accepted positions are overwritten, recurrent states
are advanced by accepted positions alone (`RowCache.commit`), and the MTP block's entries that stemmed from its own
outputs are computed again from the backbone's in the next step.
"""

from collections.abc import Sequence

import torch

from pipo_core.decode.backbone import lm_head, mtp_pass
from pipo_core.decode.cache import RowCache
from pipo_core.decode.graphs import PassRunner
from pipo_core.decode.positions import run_mtp, run_rows
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.recurrence import Inputs
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class EagleState:
    """The running rows.

    Attributes:
        cache: the backbone's, over all positions before the pending token.
        mtp_cache: the MTP block's, over all positions whose entries stem from the backbone's hidden states.
        sampler: sampling state; every token is a slot of its own, as in regular decoding.
        drafts: ``n``, the chain's length.
        run: how a step runs its passes.
        tokens: what the last step wrote, ``[B, n + 1]``; the last of each row's ``counts[b]`` is pending.
        counts: ``[B]``.
        hidden: hidden states at the positions that predicted ``tokens``, ``[B, n + 1, H]``.
    """

    def __init__(self, cache: RowCache, mtp_cache: RowCache, sampler: RowSampler, drafts: int, run: PassRunner) -> None:
        self.cache = cache
        self.mtp_cache = mtp_cache
        self.sampler = sampler
        self.drafts = drafts
        self.run = run
        self.tokens = torch.empty(0, drafts + 1, dtype=torch.long)
        self.counts: list[int] = []
        self.hidden = torch.empty(0, drafts + 1, 0)

    def join(self, other: "EagleState") -> None:
        """Append the rows of ``other``, whose chains must be as long."""
        self.cache.join(other.cache)
        self.mtp_cache.join(other.mtp_cache)
        self.sampler.join(other.sampler)
        self.tokens = torch.cat([self.tokens, other.tokens])
        self.counts = self.counts + other.counts
        self.hidden = torch.cat([self.hidden, other.hidden])

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        self.cache.keep(rows)
        self.mtp_cache.keep(rows)
        self.sampler.keep(rows)
        self.tokens = self.tokens[rows]
        self.counts = [self.counts[row] for row in rows]
        self.hidden = self.hidden[rows]


@torch.inference_mode()
def prefill(
    model: Qwen3_5ForCausalPIPO,
    prompts: Sequence[Sequence[int]],
    settings: RowSettings,
    drafts: int,
    *,
    reader: PromptReader | None = None,
) -> tuple[EagleState, Emitted]:
    """Return the rows of the prompts and the first token of each; ``reader`` may have read them in pieces."""
    read = (reader or PromptReader(model, prompts, settings, with_mtp=True)).read()
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    state = EagleState(read.open_cache(), read.open_mtp_cache(), sampler, drafts, settings.run)
    first = sampler.draw(model.lm_head(read.hidden))
    sampler.observe(first)
    sampler.advance()
    state.counts = [1] * len(prompts)
    state.tokens = torch.nn.functional.pad(first[:, None], (0, drafts))
    state.hidden = torch.nn.functional.pad(read.hidden[:, None], (0, 0, 0, drafts))
    return state, Emitted(first[:, None], torch.ones_like(first))


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: EagleState) -> Emitted:
    """Advance every row by the drafts that the backbone accepts and one token more."""
    width = state.drafts + 1
    drafts = _draft(model, state)
    fed = torch.cat([_pending(state), drafts], dim=1)  # x_P, d_1 … d_n
    state.cache.reserve(width)
    hidden, logits, pending = state.run(_read, model, state.cache, fed)  # h_P … h_{P+n}, p_0 … p_n
    state.tokens, state.counts = _verify(logits, drafts, state.sampler)
    state.cache.commit(state.counts, pending)
    state.sampler.advance(state.counts)
    state.hidden = hidden
    counts = torch.tensor(state.counts, device=model.device)
    return Emitted(state.tokens, counts, offered=state.drafts)


def _read(
    model: Qwen3_5ForCausalPIPO, cache: RowCache, fed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[Inputs]]:
    """Return hidden states ``[B, W, H]`` and logits ``[B, W, V]`` of the tokens ``fed``, and what `commit` needs."""
    hidden, pending = run_rows(model, cache, model.embed(fed), provisional=True)
    return hidden, model.lm_head(hidden), pending


def _first_draft(
    model: Qwen3_5ForCausalPIPO, cache: RowCache, tokens: torch.Tensor, hidden: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_1``, ``[B, H]``, and ``d_1``, from all positions since the last step; ``last [B]`` is each row's."""
    drafted = run_mtp(model, cache, tokens, hidden)[cache.row_numbers, last]
    return drafted, lm_head(model, drafted).argmax(dim=-1)


def _next_draft(
    model: Qwen3_5ForCausalPIPO, cache: RowCache, token: torch.Tensor, drafted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_{j+1}``, ``[B, H]``, and ``d_{j+1}``, ``[B]``, from ``d_j`` and ``m_j``."""
    drafted = mtp_pass(model, model.embed(token), drafted, cache)
    return drafted, lm_head(model, drafted).argmax(dim=-1)


def _pending(state: EagleState) -> torch.Tensor:
    """Return ``x_P``, ``[B, 1]``."""
    last = torch.tensor(state.counts, device=state.tokens.device)[:, None] - 1
    return state.tokens.gather(1, last)


def _draft(model: Qwen3_5ForCausalPIPO, state: EagleState) -> torch.Tensor:
    """Return ``d_1 … d_n``, ``[B, n]``; the MTP cache then holds entries from the backbone's hidden states alone."""
    cache = state.mtp_cache
    cache.reserve(2 * state.drafts + 1)
    # Entries of all positions since the last step: (h_{P−1}, e(x_P)) is the last of each row's.
    last = torch.tensor(state.counts, device=state.tokens.device) - 1
    drafted, token = state.run(_first_draft, model, cache, state.tokens, state.hidden, last)
    cache.commit(state.counts)
    chain = [token.clone()]
    for _ in range(state.drafts - 1):
        drafted, token = state.run(_next_draft, model, cache, token, drafted)
        cache.advance()
        chain.append(token.clone())  # the next run overwrites it
    cache.commit([1 - state.drafts] * len(state.counts))  # entries from the block's own outputs are no past
    return torch.stack(chain, dim=1)


def _verify(logits: torch.Tensor, drafts: torch.Tensor, sampler: RowSampler) -> tuple[torch.Tensor, list[int]]:
    """Return what each row writes, ``[B, n + 1]``, and how much of it; ``logits [B, n + 1, V]`` are ``p_0 … p_n``'s."""
    written = []
    counts = torch.zeros(len(drafts), dtype=torch.long, device=drafts.device)
    rows = torch.arange(len(drafts), device=drafts.device)  # whose drafts were all accepted so far
    for place in range(logits.shape[1]):
        token = torch.zeros_like(counts)
        token[rows] = sampler.draw(logits[rows, place], rows=rows, ahead=place)  # y ~ p_j
        going = torch.zeros_like(counts, dtype=torch.bool).index_fill(0, rows, True)
        sampler.observe(token, going)
        counts += going
        written.append(token)
        if place == drafts.shape[1]:
            break
        rows = rows[token[rows] == drafts[rows, place]]
        if not rows.numel():
            break
    tokens = torch.stack(written, dim=1)
    return torch.nn.functional.pad(tokens, (0, logits.shape[1] - tokens.shape[1])), counts.tolist()
