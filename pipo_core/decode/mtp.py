"""Unverified multi-token prediction: the uncompressed model writes a token, its MTP head one more, which is kept.

The baseline ``mtp`` of the paper's tables: two tokens a step, and whatever errors the head makes stay. On the
uncompressed model the head sees ``(h_t, e(x_{t+1}))`` and predicts ``x_{t+2}``; its cache has an entry for every
position.
"""

from collections.abc import Sequence

import torch

from pipo_core.decode.backbone import lm_head
from pipo_core.decode.cache import RowCache
from pipo_core.decode.graphs import PassRunner, run_plainly
from pipo_core.decode.positions import run_mtp, run_rows
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class MTPState:
    """The running rows.

    Attributes:
        cache: the backbone's.
        mtp_cache: the MTP block's, as long as the backbone's.
        sampler: sampling state; a step's two tokens are places 0 and 1 of a slot.
        run: how a step runs its passes.
        tokens: what each row reads next, ``[B, 2]``.
    """

    def __init__(self, cache: RowCache, mtp_cache: RowCache, sampler: RowSampler, run: PassRunner) -> None:
        self.cache = cache
        self.mtp_cache = mtp_cache
        self.sampler = sampler
        self.run = run
        self.tokens = torch.empty(0, 2, dtype=torch.long)

    def join(self, other: "MTPState") -> None:
        """Append the rows of ``other``."""
        self.cache.join(other.cache)
        self.mtp_cache.join(other.mtp_cache)
        self.sampler.join(other.sampler)
        self.tokens = torch.cat([self.tokens, other.tokens])

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        self.cache.keep(rows)
        self.mtp_cache.keep(rows)
        self.sampler.keep(rows)
        self.tokens = self.tokens[rows]


@torch.inference_mode()
def prefill(
    model: Qwen3_5ForCausalPIPO,
    prompts: Sequence[Sequence[int]],
    settings: RowSettings,
    *,
    reader: PromptReader | None = None,
) -> tuple[MTPState, Emitted]:
    """Return the rows of the prompts and the first two tokens of each; ``reader`` may have read them in pieces."""
    read = (reader or PromptReader(model, prompts, settings, with_mtp=True)).read()
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    state = MTPState(read.open_cache(), read.open_mtp_cache(), sampler, settings.run)
    hidden = read.hidden[:, None]
    return state, _emit(model, state, run_plainly, None, hidden, model.lm_head(read.hidden))


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: MTPState) -> Emitted:
    """Advance every row by two tokens."""
    state.cache.reserve(2)
    hidden, logits = state.run(_read, model, state.cache, state.tokens)
    state.cache.advance(2)
    return _emit(model, state, state.run, state.tokens[:, 1:], hidden, logits)


def _read(model: Qwen3_5ForCausalPIPO, cache: RowCache, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``h_t`` and ``h_{t+1}``, ``[B, 2, H]``, and the next token's logits, ``[B, V]``."""
    hidden, _ = run_rows(model, cache, model.embed(tokens))
    return hidden, lm_head(model, hidden[:, -1])


def _draft(model: Qwen3_5ForCausalPIPO, cache: RowCache, following: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the second token's logits, ``[B, V]``, from each position's next token and hidden state."""
    return lm_head(model, run_mtp(model, cache, following, hidden)[:, -1])


def _emit(
    model: Qwen3_5ForCausalPIPO,
    state: MTPState,
    run: PassRunner,
    known: torch.Tensor | None,
    hidden: torch.Tensor,
    logits: torch.Tensor,
) -> Emitted:
    """Write two tokens.

    Args:
        model: the network.
        state: the rows.
        run: how the pass of the drafts runs.
        known: the next token of every new position but the last, ``[B, W−1]``; None for one position.
        hidden: of the new positions, ``[B, W, H]``.
        logits: of the first token, ``[B, V]``.
    """
    first = state.sampler.draw(logits, place=0)
    state.sampler.observe(first)
    following = first[:, None] if known is None else torch.cat([known, first[:, None]], dim=1)
    state.mtp_cache.reserve(hidden.shape[1])
    logits = run(_draft, model, state.mtp_cache, following, hidden)
    state.mtp_cache.advance(hidden.shape[1])
    second = state.sampler.draw(logits, place=1)
    state.sampler.observe(second)
    state.sampler.advance()
    state.tokens = torch.stack([first, second], dim=1)
    return Emitted(state.tokens, torch.full_like(first, 2), offered=1)
