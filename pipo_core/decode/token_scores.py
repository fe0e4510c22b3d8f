"""Log-probabilities of sampled tokens and of prompts, where requests ask for them.

They are the model's own: the log-softmax of its scores in fp32, before penalties, biases, temperature and filters. A
pair's second token has the probability that the MTP head gave it, for that is what it was sampled from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pipo_core.model.modeling import Qwen3_5ForCausalPIPO

_POSITIONS = 128
"""Prompt positions that are projected to the vocabulary at once, over all prompts."""


class TokenScore(NamedTuple):
    """One token's log-probability.

    Attributes:
        token: its id.
        logprob: in nats, at most 0.
        top: the likeliest tokens and their log-probabilities, in falling order; as many as were asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Scored(NamedTuple):
    """Scores of some tokens, as tensors.

    Attributes:
        tokens: ``[N]``.
        logprobs: ``[N]``.
        top_ids: ``[N, K]``.
        top: their log-probabilities, ``[N, K]``.
    """

    tokens: torch.Tensor
    logprobs: torch.Tensor
    top_ids: torch.Tensor
    top: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, tokens: torch.Tensor, width: int) -> "Scored":
        """Return the scores of ``tokens [N]`` and of the ``width`` likeliest, from logits ``[N, V]``."""
        logprobs = logits.float().log_softmax(dim=-1)
        top, ids = logprobs.topk(min(width, logprobs.shape[1]), dim=-1)
        return cls(tokens, logprobs.gather(1, tokens[:, None]).squeeze(1), ids, top)

    def lists(self) -> list[TokenScore]:
        """Return one score a token."""
        rows = zip(*(part.tolist() for part in self), strict=True)
        return [TokenScore(token, value, tuple(zip(ids, best, strict=True))) for token, value, ids, best in rows]


class StepScores:
    """The scores of the tokens that one step samples, by their places in it.

    Args:
        sequences: how many sequences run.
        width: the likeliest tokens that any of them wants beside each token.
    """

    def __init__(self, sequences: int, width: int) -> None:
        self._rows: list[list[TokenScore]] = [[] for _ in range(sequences)]
        self._width = width

    def add(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        indices: torch.Tensor | None,
        vocabulary: torch.Tensor | None,
    ) -> None:
        """Add a token of the sequences ``indices``; see `Sampler.sample` for the arguments."""
        columns = tokens if vocabulary is None else torch.searchsorted(vocabulary, tokens)
        scored = Scored.of(logits, columns, self._width)
        if vocabulary is not None:
            scored = scored._replace(tokens=tokens, top_ids=vocabulary[scored.top_ids])
        numbers = range(len(self._rows)) if indices is None else indices.tolist()
        for row, score in zip(numbers, scored.lists(), strict=True):
            self._rows[row].append(score)

    def rows(self) -> list[list[TokenScore]]:
        """Return each sequence's scores, in the order in which its tokens were sampled."""
        return self._rows


@torch.inference_mode()
def score_prompt_piece(
    model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor, following: torch.Tensor, width: int
) -> list[list[TokenScore]]:
    """Return the scores of the tokens that follow some positions of prompts.

    Args:
        model: an uncompressed model.
        hidden: final-normed hidden states, ``[B, T, H]``.
        following: the next position's token, ``[B, F]`` with ``F ≤ T``; positions beyond it are not scored.
        width: how many of the likeliest tokens are wanted.

    Returns:
        ``F`` scores for each of the ``B`` prompts.
    """
    found: list[list[TokenScore]] = [[] for _ in range(len(hidden))]
    at_once = max(_POSITIONS // len(hidden), 1)
    for begin in range(0, following.shape[1], at_once):
        tokens = following[:, begin : begin + at_once]
        logits = model.lm_head(hidden[:, begin : begin + tokens.shape[1]])
        scores = Scored.of(logits.flatten(0, 1), tokens.flatten(), width).lists()
        count = tokens.shape[1]
        for row, mine in enumerate(found):
            mine += scores[row * count : (row + 1) * count]
    return found


def widest(counts: Sequence[int | None]) -> int | None:
    """Return the most of the counts that are asked for; None if none is."""
    asked = [count for count in counts if count is not None]
    return max(asked) if asked else None
