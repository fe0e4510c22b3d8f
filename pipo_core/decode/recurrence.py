"""The states of a gated-delta layer, and the update of one position."""

from typing import NamedTuple

import torch


class Inputs(NamedTuple):
    """What ``W`` positions of a sequence add to a layer's states, so that any number of them can be accepted later.

    Attributes:
        conv: inputs of the convolution, ``[B, C, W]``.
        decay: ``g``, the logarithm of the decay, ``[B, W, heads]``; fp32, as are all below.
        beta: ``β``, the write strength, ``[B, W, heads]``.
        k: normalised keys, ``[B, W, heads, Dk]``.
        v: values, ``[B, W, heads, Dv]``.
    """

    conv: torch.Tensor
    decay: torch.Tensor
    beta: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


def convolve(past: torch.Tensor, new: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the causal depthwise convolution ``[B, C, W]`` of new inputs.

    Args:
        past: the last ``K`` inputs, ``[B, C, K]``.
        new: ``[B, C, W]``.
        weight: ``[C, K]``.
        bias: ``[C]``, or None.
    """
    size = weight.shape[1]
    windows = torch.cat([past, new], dim=2).unfold(2, size, 1)[:, :, 1:]  # [B, C, W, K]
    total = (windows.float() * weight[:, None].float()).sum(dim=-1)
    if bias is not None:
        total = total + bias[:, None].float()
    return total.to(new.dtype)


def advance(state: torch.Tensor, inputs: Inputs, place: int, taken: torch.Tensor | None = None) -> None:
    """Make position ``place`` part of the recurrent state ``[B, heads, Dk, Dv]``, in place.

    ``S ← exp(g) · S``, then ``S ← S + k ⊗ β (v − Sᵀ k)``. Where ``taken [B]`` is False the state stays.
    """
    decay, beta = inputs.decay[:, place].exp(), inputs.beta[:, place]
    if taken is not None:  # a factor of one and nothing written change nothing
        decay, beta = torch.where(taken[:, None], decay, 1.0), torch.where(taken[:, None], beta, 0.0)
    k, v = inputs.k[:, place], inputs.v[:, place]
    state.mul_(decay[..., None, None])
    difference = v - torch.matmul(k[:, :, None], state).squeeze(2)
    state.addcmul_(k[..., None], (difference * beta[..., None])[:, :, None])
