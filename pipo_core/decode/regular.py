"""Regular decoding: one token a step on the uncompressed model (the baseline; also how teachers write answers)."""

from collections.abc import Sequence

import torch

from pipo_core.decode.backbone import decode_pass, lm_head
from pipo_core.decode.cache import RowCache
from pipo_core.decode.graphs import PassRunner
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class RegularState:
    """The running rows of regular decoding.

    Attributes:
        cache: over tokens.
        sampler: sampling state.
        run: how a step runs its pass.
        token: what each row reads next, ``[B]``.
    """

    def __init__(self, cache: RowCache, sampler: RowSampler, run: PassRunner) -> None:
        self.cache = cache
        self.sampler = sampler
        self.run = run
        self.token = torch.empty(0, dtype=torch.long)

    def join(self, other: "RegularState") -> None:
        """Append the rows of ``other``."""
        self.cache.join(other.cache)
        self.sampler.join(other.sampler)
        self.token = torch.cat([self.token, other.token])

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        self.cache.keep(rows)
        self.sampler.keep(rows)
        self.token = self.token[rows]


@torch.inference_mode()
def prefill(
    model: Qwen3_5ForCausalPIPO,
    prompts: Sequence[Sequence[int]],
    settings: RowSettings,
    *,
    reader: PromptReader | None = None,
) -> tuple[RegularState, Emitted]:
    """Return the rows of the prompts and the first token of each; ``reader`` may have read them in pieces."""
    read = (reader or PromptReader(model, prompts, settings)).read()
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    state = RegularState(read.open_cache(), sampler, settings.run)
    return state, _emit(state, lm_head(model, read.hidden))


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: RegularState) -> Emitted:
    """Advance every row by one token."""
    state.cache.reserve()
    logits = state.run(_read, model, state.cache, state.token)
    state.cache.advance()
    return _emit(state, logits)


def _read(model: Qwen3_5ForCausalPIPO, cache: RowCache, tokens: torch.Tensor) -> torch.Tensor:
    """Return the next token's logits, ``[B, V]``."""
    return lm_head(model, decode_pass(model, model.embed(tokens), cache))


def _emit(state: RegularState, logits: torch.Tensor) -> Emitted:
    """Draw the next token from ``logits [B, V]``."""
    state.token = state.sampler.draw(logits, place=0)
    state.sampler.observe(state.token)
    state.sampler.advance()
    return Emitted(state.token[:, None], torch.ones_like(state.token))
