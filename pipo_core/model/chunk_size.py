"""How many positions a loss projects to the vocabulary at once, where the recipe does not say."""

import torch

from pipo_core.model.free_memory import free_bytes

MOST = 2048
"""Positions of a cross-entropy: a larger product is no faster, and one of Qwen3.5's vocabulary takes 2 GB in fp32."""
MOST_OF_DIVERGENCE = 1024
"""Positions of a divergence, which holds three such buffers."""
_LEAST = 32
_SHARE = 0.5
"""Share of the free memory that a chunk may take; the rest is for what the backward pass allocates."""


def positions_at_once(weight: torch.Tensor, *, most: int, bytes_each: int) -> int:
    """Return how many positions fit the memory that is free now: ``most``, or a half, a quarter … of it.

    Losses and gradients depend on the number by rounding alone, and the steps of a factor of two let runs on one
    machine agree in that, too.

    Args:
        weight: the LM head's, ``[V, H]``; its gradient and a product of its size are left room for if it trains.
        most: the most positions that are worth it.
        bytes_each: what a position takes for each token of the vocabulary.
    """
    held = 8 * weight.numel() if weight.requires_grad else 0
    room = _SHARE * (free_bytes(weight.device) - held)
    positions = most
    while positions > _LEAST and positions * len(weight) * bytes_each > room:
        positions //= 2
    return positions
