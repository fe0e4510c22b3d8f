"""Regular decoding: one token a step on the uncompressed model (the baseline; also how teachers write answers)."""

from dataclasses import dataclass

import torch
from typing_extensions import override

from pipo_core.decode.backbone import decode_pass, lm_head
from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.method import Method, RunningState, StepLoad, StepOutput
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.sampling import Sampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import ModelSizes
from pipo_core.recipes.methods import METHODS


@dataclass
class RegularState(RunningState):
    """The running sequences.

    Attributes:
        tokens: what each sequence reads next, ``[B]``.
    """

    tokens: torch.Tensor


class RegularMethod(Method[RegularState]):
    """One token a step."""

    spec = METHODS["regular"]

    @override
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[RegularState, StepOutput]:
        logits = lm_head(self.model, read.hidden)
        state = RegularState(read.open_cache(), sampler, tokens=torch.empty(0, dtype=torch.long))
        return state, self._write(state, logits)

    @override
    @torch.inference_mode()
    def step(self, state: RegularState) -> StepOutput:
        """Advance every sequence by one token."""
        state.cache.reserve()
        logits = self.run(_read, self.model, state.cache, state.tokens)
        state.cache.advance()
        return self._write(state, logits)

    def _write(self, state: RegularState, logits: torch.Tensor) -> StepOutput:
        """Sample the next token from ``logits [B, V]``."""
        state.tokens = state.sampler.sample(logits, place=0)
        state.sampler.count(state.tokens)
        state.sampler.advance()
        counts = torch.ones_like(state.tokens)
        return StepOutput(state.tokens[:, None], counts, scores=state.sampler.take_scores())

    @override
    @classmethod
    def step_weights(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``layers + head``."""
        return sizes.layers + sizes.head

    @override
    @classmethod
    def step_products(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``layers + head``."""
        return sizes.layers + sizes.head

    @override
    @classmethod
    def step_attention(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``A·context``."""
        return sizes.attention * load.context

    @override
    @classmethod
    def step_cache_bytes(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``KV(context)``."""
        return sizes.kv * load.context


def _read(model: Qwen3_5ForCausalPIPO, cache: SequenceCache, tokens: torch.Tensor) -> torch.Tensor:
    """Return the next token's logits, ``[B, V]``."""
    return lm_head(model, decode_pass(model, model.embed(tokens), cache))
