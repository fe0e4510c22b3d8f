"""Regular decoding: one token a step on the uncompressed model (the baseline; also how teachers write answers)."""

from collections.abc import Sequence

import torch

from pipo_core.decode.cache import RowCache, decode_inputs
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


class RegularState:
    """The running rows of regular decoding: caches, sampling state, and the token that each row reads next."""

    def __init__(self, cache: RowCache, sampler: RowSampler) -> None:
        self.cache = cache
        self.sampler = sampler
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
    read = (reader or open_reader(model, prompts, settings)).read()
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    state = RegularState(read.open_cache(), sampler)
    return state, _emit(model, state, read.hidden)


def open_reader(
    model: Qwen3_5ForCausalPIPO, prompts: Sequence[Sequence[int]], settings: RowSettings, chunk: int | None = None
) -> PromptReader:
    """Return what reads the prompts, ``chunk`` tokens at a time."""
    return PromptReader(model, prompts, settings, chunk=chunk)


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: RegularState) -> Emitted:
    """Advance every row by one token."""
    state.cache.reserve()
    inputs = model.embed(state.token[:, None])
    hidden = model.text_model(inputs_embeds=inputs, **decode_inputs(state.cache)).last_hidden_state
    state.cache.advance()
    return _emit(model, state, hidden[:, -1])


def _emit(model: Qwen3_5ForCausalPIPO, state: RegularState, hidden: torch.Tensor) -> Emitted:
    """Draw the next token from ``hidden [B, H]``."""
    state.token = state.sampler.draw(model.lm_head(hidden), place=0)
    state.sampler.observe(state.token)
    state.sampler.advance()
    return Emitted(state.token[:, None], torch.ones_like(state.token))
