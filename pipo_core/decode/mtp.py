"""Unverified multi-token prediction: the uncompressed model writes a token, its MTP head one more, which is kept.

The baseline ``mtp`` of the paper's tables: two tokens a step; errors of the head stay in the text. On the
uncompressed model the head sees ``(h_t, e(x_{t+1}))`` and predicts ``x_{t+2}``; its cache has an entry for every
position.
"""

from dataclasses import dataclass

import torch
from typing_extensions import override

from pipo_core.decode.backbone import lm_head
from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.graphs import PassRunner, run_plainly
from pipo_core.decode.method import Method, RunningState, StepLoad, StepOutput
from pipo_core.decode.multi_position import run_backbone, run_mtp
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.sampling import Sampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import ModelSizes
from pipo_core.recipes.methods import METHODS


@dataclass
class MTPState(RunningState):
    """The running sequences. A step's two tokens are places 0 and 1 of a slot.

    Attributes:
        mtp_cache: the MTP block's, as long as the backbone's.
        tokens: what each sequence reads next, ``[B, 2]``.
    """

    mtp_cache: SequenceCache
    tokens: torch.Tensor


class MTPMethod(Method[MTPState]):
    """Two tokens a step, the second one unverified."""

    spec = METHODS["mtp"]

    @override
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[MTPState, StepOutput]:
        hidden, logits = read.hidden[:, None], self.model.lm_head(read.hidden)
        tokens = torch.empty(0, 2, dtype=torch.long)
        state = MTPState(read.open_cache(), sampler, mtp_cache=read.open_mtp_cache(), tokens=tokens)
        return state, self._write(state, run_plainly, None, hidden, logits)

    @override
    @torch.inference_mode()
    def step(self, state: MTPState) -> StepOutput:
        """Advance every sequence by two tokens."""
        state.cache.reserve(2)
        hidden, logits = self.run(_read, self.model, state.cache, state.tokens)
        state.cache.advance(2)
        return self._write(state, self.run, state.tokens[:, 1:], hidden, logits)

    def _write(
        self,
        state: MTPState,
        run: PassRunner,
        known: torch.Tensor | None,
        hidden: torch.Tensor,
        logits: torch.Tensor,
    ) -> StepOutput:
        """Write two tokens.

        Args:
            state: the sequences.
            run: how the pass of the drafts runs.
            known: the next token of every new position but the last, ``[B, W−1]``; None for one position.
            hidden: of the new positions, ``[B, W, H]``.
            logits: of the first token, ``[B, V]``.
        """
        first = state.sampler.sample(logits, place=0)
        state.sampler.count(first)
        following = first[:, None] if known is None else torch.cat([known, first[:, None]], dim=1)
        state.mtp_cache.reserve(hidden.shape[1])
        logits = run(_draft, self.model, state.mtp_cache, following, hidden)
        state.mtp_cache.advance(hidden.shape[1])
        second = state.sampler.sample(logits, place=1)
        state.sampler.count(second)
        state.sampler.advance()
        state.tokens = torch.stack([first, second], dim=1)
        return StepOutput(state.tokens, torch.full_like(first, 2), offered=1, scores=state.sampler.take_scores())

    @override
    @classmethod
    def step_weights(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``layers + mtp + 2·head``."""
        return sizes.layers + sizes.mtp + 2 * sizes.head

    @override
    @classmethod
    def step_products(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``2·(layers + mtp + head)``: two positions."""
        return 2 * (sizes.layers + sizes.mtp + sizes.head)

    @override
    @classmethod
    def step_attention(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``2·(A + A_mtp)·context``: two positions."""
        return 2 * (sizes.attention + sizes.attention_mtp) * load.context

    @override
    @classmethod
    def step_cache_bytes(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``KV(context) + KV_mtp(context)``."""
        return (sizes.kv + sizes.kv_mtp) * load.context


def _read(model: Qwen3_5ForCausalPIPO, cache: SequenceCache, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``h_t`` and ``h_{t+1}``, ``[B, 2, H]``, and the next token's logits, ``[B, V]``."""
    hidden, _ = run_backbone(model, cache, model.embed(tokens))
    return hidden, lm_head(model, hidden[:, -1])


def _draft(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, following: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Return the second token's logits, ``[B, V]``, from each position's next token and hidden state."""
    return lm_head(model, run_mtp(model, cache, following, hidden)[:, -1])
