"""Speculative decoding with the model's own MTP head: a chain of drafts, verified in one pass; lossless.

The baseline ``eagle`` (SGLang's NEXTN). One step, with the pending token ``x_P`` sampled but not read yet::

    1. m_1 = MTP(h_{P−1}, e(x_P)),   d_1 = argmax LMHead(m_1)
       m_{j+1} = MTP(m_j, e(d_j)),   d_{j+1} = argmax LMHead(m_{j+1})
    2. h_P … h_{P+n} = backbone(x_P, d_1 … d_n), one pass over n + 1 positions
    3. for j = 0 … n: y ~ p_j = p(· | x_{≤P}, d_1 … d_j);  write y;  go on only while y = d_{j+1}

Step 3 is rejection sampling. A chain of single drafts has the draft distribution ``q = 1[y = d]``, so a draft is
accepted with ``min(1, p(d)/q(d)) = p(d)``, and else a token of the residual ``max(0, p − q)``, that is of ``p`` without
``d``, is written. Sampling from ``p`` and comparing with ``d`` does just that. The t-th token of an answer is sampled
with the noise that regular decoding uses for it, so a seed gives the same text as there: equality in law, made visible.

Rejected drafts leave nothing behind: keys and values beyond the accepted positions are overwritten, recurrent states
are advanced by accepted positions alone (`SequenceCache.commit`), and the MTP block's entries that stemmed from its own
outputs are computed again from the backbone's in the next step.
"""

from dataclasses import dataclass, field

import torch
from typing_extensions import override

from pipo_core.decode.backbone import lm_head, mtp_pass
from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.method import Method, RunningState, StepLoad, StepOutput
from pipo_core.decode.multi_position import run_backbone, run_mtp
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.recurrence import Inputs
from pipo_core.decode.sampling import Sampler
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import ModelSizes
from pipo_core.recipes.methods import METHODS


@dataclass
class EagleState(RunningState):
    """The running sequences. For the sampler every token is a slot of its own, as in regular decoding.

    Attributes:
        cache: the backbone's, over all positions before the pending token.
        mtp_cache: the MTP block's, over all positions whose entries stem from the backbone's hidden states.
        tokens: what the last step wrote, ``[B, n + 1]``; the last of each sequence's ``counts[b]`` is pending.
        counts: ``[B]``.
        hidden: hidden states at the positions that predicted ``tokens``, ``[B, n + 1, H]``.
        steps: how many steps each sequence has taken since its prompt, ``[B]``.
    """

    mtp_cache: SequenceCache
    tokens: torch.Tensor
    counts: list[int]
    hidden: torch.Tensor
    steps: list[int]


@dataclass(frozen=True)
class EagleMethod(Method[EagleState]):
    """A chain of drafts a step, verified in one pass.

    Attributes:
        drafts: ``n``, the chain's length.
        acceptance: for measurements, the share of all drafts to accept, evenly spread over steps, whatever the model
            says of them: the text is then not the model's. None to verify them.
    """

    spec = METHODS["eagle"]

    drafts: int = field(default=3, kw_only=True)
    acceptance: float | None = field(default=None, kw_only=True)

    @property
    def max_step_tokens(self) -> int:
        """The most real tokens that a step writes for a sequence: the accepted drafts and one more."""
        return 1 + self.drafts

    @override
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[EagleState, StepOutput]:
        first = sampler.sample(self.model.lm_head(read.hidden))
        sampler.count(first)
        sampler.advance()
        state = EagleState(
            read.open_cache(),
            sampler,
            mtp_cache=read.open_mtp_cache(),
            tokens=torch.nn.functional.pad(first[:, None], (0, self.drafts)),
            counts=[1] * len(first),
            hidden=torch.nn.functional.pad(read.hidden[:, None], (0, 0, 0, self.drafts)),
            steps=[0] * len(first),
        )
        return state, StepOutput(first[:, None], torch.ones_like(first), scores=sampler.take_scores())

    @override
    @torch.inference_mode()
    def step(self, state: EagleState) -> StepOutput:
        """Advance every sequence by the drafts that the backbone accepts and one token more."""
        drafts = self._draft(state)
        fed = torch.cat([_pending(state), drafts], dim=1)  # x_P, d_1 … d_n
        state.cache.reserve(self.drafts + 1)
        hidden, logits, pending = self.run(_read, self.model, state.cache, fed)  # h_P … h_{P+n}, p_0 … p_n
        state.tokens, state.counts = _verify(logits, drafts, state.sampler, self._decided(state))
        state.steps = [step + 1 for step in state.steps]
        state.cache.commit(state.counts, pending)
        state.sampler.advance(state.counts)
        state.hidden = hidden
        counts = torch.tensor(state.counts, device=self.model.device)
        return StepOutput(state.tokens, counts, offered=self.drafts, scores=state.sampler.take_scores())

    def _decided(self, state: EagleState) -> torch.Tensor | None:
        """Return how many drafts of each sequence this step accepts, ``[B]``; None if the model decides."""
        if self.acceptance is None:
            return None
        return state.sampler.spread(self.acceptance * self.drafts, state.steps)

    def _draft(self, state: EagleState) -> torch.Tensor:
        """Return ``d_1 … d_n``, ``[B, n]``; the MTP cache then holds only entries from the backbone's hidden states."""
        cache = state.mtp_cache
        cache.reserve(2 * self.drafts + 1)
        # Entries of all positions since the last step: (h_{P−1}, e(x_P)) is the last of each sequence's.
        last = torch.tensor(state.counts, device=state.tokens.device) - 1
        drafted, token = self.run(_first_draft, self.model, cache, state.tokens, state.hidden, last)
        cache.commit(state.counts)
        chain = [token.clone()]
        for _ in range(self.drafts - 1):
            drafted, token = self.run(_next_draft, self.model, cache, token, drafted)
            cache.advance()
            chain.append(token.clone())  # the next run overwrites it
        cache.commit([1 - self.drafts] * len(state.counts))  # forget the entries from the block's own outputs
        return torch.stack(chain, dim=1)

    @override
    @classmethod
    def step_weights(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``layers + head + n·(mtp + head)``."""
        return sizes.layers + sizes.head + load.drafts * (sizes.mtp + sizes.head)

    @override
    @classmethod
    def step_products(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``(n+1)·(layers + head) + n·head + (n + n·a)·mtp``.

        The first is for the verified positions. The MTP block runs for ``n`` drafts, and once more for the share ``a``
        of them that was accepted, whose entries then stem from the backbone.
        """
        n = load.drafts
        return (n + 1) * (sizes.layers + sizes.head) + n * sizes.head + n * (1 + load.acceptance) * sizes.mtp

    @override
    @classmethod
    def step_attention(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``(n+1)·A·context + (n + n·a)·A_mtp·context``, as many positions as have products with weights."""
        n = load.drafts
        return ((n + 1) * sizes.attention + n * (1 + load.acceptance) * sizes.attention_mtp) * load.context

    @override
    @classmethod
    def step_cache_bytes(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return ``KV(context) + n·KV_mtp(context)``."""
        return (sizes.kv + load.drafts * sizes.kv_mtp) * load.context


def _read(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, fed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[Inputs]]:
    """Return hidden states ``[B, W, H]`` and logits ``[B, W, V]`` of the tokens ``fed``, and what `commit` needs."""
    hidden, pending = run_backbone(model, cache, model.embed(fed), speculative=True)
    return hidden, model.lm_head(hidden), pending


def _first_draft(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, tokens: torch.Tensor, hidden: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_1``, ``[B, H]``, and ``d_1``, from all positions since the last step, of which ``last [B]`` ends."""
    drafted = run_mtp(model, cache, tokens, hidden)[cache.indices, last]
    return drafted, lm_head(model, drafted).argmax(dim=-1)


def _next_draft(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, token: torch.Tensor, drafted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``m_{j+1}``, ``[B, H]``, and ``d_{j+1}``, ``[B]``, from ``d_j`` and ``m_j``."""
    drafted = mtp_pass(model, model.embed(token), drafted, cache)
    return drafted, lm_head(model, drafted).argmax(dim=-1)


def _pending(state: EagleState) -> torch.Tensor:
    """Return ``x_P``, ``[B, 1]``."""
    last = torch.tensor(state.counts, device=state.tokens.device)[:, None] - 1
    return state.tokens.gather(1, last)


def _verify(
    logits: torch.Tensor, drafts: torch.Tensor, sampler: Sampler, decided: torch.Tensor | None
) -> tuple[torch.Tensor, list[int]]:
    """Return what each sequence writes, ``[B, n + 1]``, and how much of it.

    Args:
        logits: of ``p_0 … p_n``, ``[B, n + 1, V]``.
        drafts: ``d_1 … d_n``, ``[B, n]``.
        sampler: of the sequences.
        decided: how many drafts each sequence accepts, ``[B]``; None for those that equal what is sampled.
    """
    written = []
    counts = torch.zeros(len(drafts), dtype=torch.long, device=drafts.device)
    going = torch.arange(len(drafts), device=drafts.device)  # sequences whose drafts were all accepted so far
    for place in range(logits.shape[1]):
        token = torch.zeros_like(counts)
        token[going] = sampler.sample(logits[going, place], indices=going, ahead=place)  # y ~ p_j
        if decided is not None and place < drafts.shape[1]:
            token[going] = torch.where(decided[going] > place, drafts[going, place], token[going])
        writes = torch.zeros_like(counts, dtype=torch.bool).index_fill(0, going, True)
        sampler.count(token, writes)
        counts += writes
        written.append(token)
        if place == drafts.shape[1]:
            break
        goes_on = token[going] == drafts[going, place] if decided is None else decided[going] > place
        going = going[goes_on]
        if not going.numel():
            break
    tokens = torch.stack(written, dim=1)
    return torch.nn.functional.pad(tokens, (0, logits.shape[1] - tokens.shape[1])), counts.tolist()
