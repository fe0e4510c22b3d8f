"""Draws one token a sequence from scores, by inverting the cumulative distribution at the request's noise.

To sort a vocabulary of 248,320 takes a third of a small model's step, so nobody waits for it who does not need it.
Where nothing is left out, tokens are drawn in the vocabulary's order. Where top-k, top-p or min-p leave tokens out, the
likeliest `_FIRST` are sorted, and the others only if a cut lies behind these.

A request draws the same whatever others share its batch. Scores of models in bf16 are often equal, and how many are
sorted depends on the others, so equal scores have an order of their own: the lower id goes first.
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


def draw_from_likeliest(
    scores: torch.Tensor, cuts: Cuts, noise: torch.Tensor, widest: int, wanted: torch.Tensor | None = None
) -> torch.Tensor:
    """Return one token a sequence, ``[N]``, of those that the cuts leave.

    Args:
        scores: ``[N, V]``.
        cuts: of each sequence.
        noise: in [0, 1), ``[N, 1]``.
        widest: the largest top-k of the wanted sequences, at most ``V``.
        wanted: the sequences whose draws count, ``[N]``; None for all.
    """
    everything = scores.shape[1]
    whole = None
    if widest == everything:  # else no sequence's top-k keeps all
        whole = (scores / cuts.temperature.clamp(min=1e-6)).logsumexp(dim=-1, keepdim=True)
    first = min(widest, _FIRST)
    if first < everything:
        ids, tied = _likeliest(scores, first)
        if scores.is_cuda:  # it does it sooner than it answers whether it must
            ids = _lowest_of_the_last(scores, ids)
        drawn = _draw_from(scores, ids, cuts, noise, whole)
        if not scores.is_cuda and _any(tied & drawn.keeps_last, wanted):
            drawn = _draw_from(scores, _lowest_of_the_last(scores, ids), cuts, noise, whole)
        if first == widest or not _any(~drawn.enough, wanted):
            return drawn.tokens
    ids = scores.sort(dim=-1, descending=True, stable=True).indices
    return _draw_from(scores, ids, cuts, noise, whole).tokens


class _Drawn(NamedTuple):
    """What was drawn of the likeliest tokens, each ``[N]``.

    Attributes:
        tokens: those drawn.
        enough: whether all that the cuts leave is among these tokens.
        keeps_last: whether the cuts leave any token whose score is that of the last of these.
    """

    tokens: torch.Tensor
    enough: torch.Tensor
    keeps_last: torch.Tensor


def _draw_from(
    scores: torch.Tensor, ids: torch.Tensor, cuts: Cuts, noise: torch.Tensor, whole: torch.Tensor | None
) -> _Drawn:
    """Draw one token a sequence of its likeliest ones.

    Args:
        scores: ``[N, V]``.
        ids: the likeliest tokens, ``[N, W]``, in order.
        cuts: of each sequence.
        noise: in [0, 1), ``[N, 1]``.
        whole: ``log Σ exp(scores / temperature)`` of all tokens, ``[N, 1]``; None if every top-k leaves some out.
    """
    width, top = ids.shape[1], scores.gather(1, ids)
    scaled = top / cuts.temperature.clamp(min=1e-6)
    scaled = scaled.masked_fill(torch.arange(width, device=scores.device) >= cuts.top_k, -torch.inf)
    sums = scaled.logsumexp(dim=-1, keepdim=True)
    keeps_all = cuts.top_k >= scores.shape[1]
    if whole is not None:  # also where all are sorted, so that both ways give the same
        sums = torch.where(keeps_all, whole, sums)
    probabilities = (scaled - sums).exp()
    mass = probabilities.cumsum(dim=-1)
    left_out = (mass - probabilities >= cuts.top_p) | (probabilities < cuts.min_p * probabilities[:, :1])
    kept = probabilities.masked_fill(left_out, 0.0)
    cumulative = kept.cumsum(dim=-1)
    tokens = ids.gather(1, _first_above(cumulative, noise * cumulative[:, -1:]))
    enough = (cuts.top_k <= width) | (keeps_all & left_out[:, -1:]) | (cuts.temperature == 0)
    keeps_last = ((kept > 0) & (top == top[:, -1:])).any(dim=-1)
    return _Drawn(tokens.squeeze(1), enough.squeeze(1), keeps_last)


def _likeliest(scores: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of the highest scores, ``[N, width]``, in order, and whether more equal the last, ``[N]``.

    Of equal scores the lower id goes first, but which of those that equal the last are there is not defined.
    """
    top, ids = scores.topk(width + 1, dim=-1)
    tied = top[:, -1] == top[:, -2]
    ids = ids[:, :width].sort(dim=-1).values
    order = scores.gather(1, ids).sort(dim=-1, descending=True, stable=True).indices
    return ids.gather(1, order), tied


def _lowest_of_the_last(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the likeliest ids, ``[N, W]``, with the lowest ones of those that equal the last in score."""
    top, width = scores.gather(1, ids), ids.shape[1]
    last = top[:, -1:]
    ranks = torch.arange(scores.shape[1], 0, -1, dtype=torch.float32, device=scores.device)
    lowest = ((scores == last) * ranks).topk(width, dim=-1).indices
    equal = top == last
    place = torch.arange(width, device=scores.device) - (width - equal.sum(dim=-1, keepdim=True))
    return torch.where(equal, lowest.gather(1, place.clamp(min=0)), ids)


def _any(rows: torch.Tensor, wanted: torch.Tensor | None) -> bool:
    """Return whether any wanted row is True, ``[N]``."""
    return bool((rows if wanted is None else rows & wanted).any())


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the first place whose running sum is above the target, ``[N, 1]``: never one that adds nothing.

    A target that rounding has raised to the whole sum is put just below it.
    """
    whole = cumulative[:, -1:]
    target = torch.minimum(target, torch.nextafter(whole, torch.zeros_like(whole)))
    return (cumulative <= target).sum(dim=-1, keepdim=True).clamp(max=cumulative.shape[1] - 1)  # NaN: the first
