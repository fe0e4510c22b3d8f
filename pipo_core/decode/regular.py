"""Regular decoding: one token a step on the uncompressed model (the baseline; also how teachers write answers)."""

from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicCache

from pipo_core.decode.backbone import decode_pass, lm_head
from pipo_core.decode.cache import RowCache, prefill_states
from pipo_core.decode.rows import Emitted, RowSettings, open_cache
from pipo_core.decode.sampling import RowSampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.slots import left_pad


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
    model: Qwen3_5ForCausalPIPO, prompts: Sequence[Sequence[int]], settings: RowSettings
) -> tuple[RegularState, Emitted]:
    """Read the prompts and return their rows and the first token of each."""
    ids, fills = left_pad(prompts, settings.pad_id, model.device)
    steps = torch.arange(ids.shape[1], device=ids.device)
    prefilled = DynamicCache(config=model.config)
    hidden = model.text_model(
        inputs_embeds=model.embed(ids),
        attention_mask=(steps >= fills[:, None]).long() if fills.any() else None,
        position_ids=(steps - fills[:, None]).clamp(min=0),
        past_key_values=prefilled,
        use_cache=True,
    ).last_hidden_state
    lengths = [len(prompt) for prompt in prompts]
    cache = open_cache(model, model.config, settings, lengths)
    cache.load(prefill_states(prefilled, fills), lengths)
    sampler = RowSampler(settings.sampling, prompts, model.config.vocab_size, model.device)
    state = RegularState(cache, sampler)
    return state, _emit(model, state, hidden[:, -1])


@torch.inference_mode()
def step(model: Qwen3_5ForCausalPIPO, state: RegularState) -> Emitted:
    """Advance every row by one token."""
    state.cache.reserve()
    hidden = decode_pass(model, model.embed(state.token), state.cache)
    state.cache.advance()
    return _emit(model, state, hidden)


def _emit(model: Qwen3_5ForCausalPIPO, state: RegularState, hidden: torch.Tensor) -> Emitted:
    """Draw the next token from ``hidden [B, H]``."""
    state.token = state.sampler.draw(lm_head(model, hidden), place=0)
    state.sampler.observe(state.token)
    state.sampler.advance()
    return Emitted(state.token[:, None], torch.ones_like(state.token))
