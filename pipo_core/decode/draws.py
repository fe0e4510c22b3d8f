"""Draws one token a sequence from scores, by inverting the cumulative distribution at the request's noise.

To sort a vocabulary of 248,320 takes a third of a small model's step, so nobody waits for it who does not need it.
Where nothing is left out, tokens are drawn in the vocabulary's order. Where top-k, top-p or min-p leave tokens out, the
likeliest `_FIRST` are sorted, and the others only if a cut lies behind these.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

_BLOCK = 512
"""Tokens of a block. Sums of blocks are summed first, which is exact to more digits than one long running sum."""
_FIRST = 1024


class Cuts(NamedTuple):
    """What is drawn from, each ``[N, 1]``. A top-k of all tokens, a top-p of 1 and a min-p of 0 cut nothing."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    min_p: torch.Tensor


def draw_from_all(scores: torch.Tensor, temperature: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return one token a sequence, ``[N]``, in proportion to ``exp(scores / temperature)``.

    Args:
        scores: ``[N, V]``.
        temperature: ``[N, 1]``; where it is 0, what is drawn means nothing.
        noise: in [0, 1), ``[N, 1]``.
    """
    probabilities = (scores / temperature.clamp(min=1e-6)).softmax(dim=-1)
    blocks = F.pad(probabilities, (0, -probabilities.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    sums = F.pad(blocks.sum(dim=-1).cumsum(dim=-1), (1, 0))  # [N, blocks + 1], from 0
    target = noise * sums[:, -1:]
    block = _first_above(sums[:, 1:], target)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, _BLOCK)).squeeze(1).cumsum(dim=-1)
    place = _first_above(inside, target - sums.gather(1, block))
    return (block * _BLOCK + place).squeeze(1)


def draw_from_likeliest(scores: torch.Tensor, cuts: Cuts, noise: torch.Tensor, widest: int) -> torch.Tensor:
    """Return one token a sequence, ``[N]``, of those that the cuts leave.

    Args:
        scores: ``[N, V]``.
        cuts: of each sequence.
        noise: in [0, 1), ``[N, 1]``.
        widest: the largest top-k, at most ``V``.
    """
    whole = None
    if widest == scores.shape[1]:  # else no sequence's top-k keeps all
        whole = (scores / cuts.temperature.clamp(min=1e-6)).logsumexp(dim=-1, keepdim=True)
    first = min(widest, _FIRST)
    drawn, enough = _draw_from_first(scores, cuts, noise, first, whole)
    if first < widest and not bool(enough.all()):
        drawn, _ = _draw_from_first(scores, cuts, noise, widest, whole)
    return drawn


def _draw_from_first(
    scores: torch.Tensor, cuts: Cuts, noise: torch.Tensor, width: int, whole: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is drawn of the ``width`` likeliest tokens, ``[N]``, and whether the cuts lie among them, ``[N]``.

    Args:
        scores: ``[N, V]``.
        cuts: of each sequence.
        noise: in [0, 1), ``[N, 1]``.
        width: tokens that are sorted.
        whole: ``log Σ exp(scores / temperature)`` of all tokens, ``[N, 1]``; None if every top-k leaves some out.
    """
    top, ids = scores.topk(width, dim=-1)
    scaled = top / cuts.temperature.clamp(min=1e-6)
    scaled = scaled.masked_fill(torch.arange(width, device=scores.device) >= cuts.top_k, -torch.inf)
    sums = scaled.logsumexp(dim=-1, keepdim=True)
    keeps_all = cuts.top_k >= scores.shape[1]
    if whole is not None:  # also where all are sorted: a sequence draws the same whatever the others need
        sums = torch.where(keeps_all, whole, sums)
    probabilities = (scaled - sums).exp()
    mass = probabilities.cumsum(dim=-1)
    left_out = (mass - probabilities >= cuts.top_p) | (probabilities < cuts.min_p * probabilities[:, :1])
    cumulative = probabilities.masked_fill(left_out, 0.0).cumsum(dim=-1)
    drawn = ids.gather(1, _first_above(cumulative, noise * cumulative[:, -1:])).squeeze(1)
    enough = (cuts.top_k <= width) | (keeps_all & left_out[:, -1:]) | (cuts.temperature == 0)
    return drawn, enough.squeeze(1)


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the first place whose running sum is above the target, ``[N, 1]``: never one that adds nothing.

    A target that rounding has raised to the whole sum is put just below it.
    """
    whole = cumulative[:, -1:]
    target = torch.minimum(target, torch.nextafter(whole, torch.zeros_like(whole)))
    return (cumulative <= target).sum(dim=-1, keepdim=True).clamp(max=cumulative.shape[1] - 1)  # NaN: the first
