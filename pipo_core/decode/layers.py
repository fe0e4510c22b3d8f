"""The layers' arithmetic for one new position a sequence, written out for speed, as functions of their weights.

They compute the same as `Qwen3_5DecoderLayer`, with three shortcuts for one position. The depthwise convolution is a
multiply-and-sum over its four inputs (as a convolution in bf16 it is very slow on CPUs without AVX-512-BF16). The query
heads that share a key head are read as queries of one head, without copies of the keys. The recurrent state is read and
written in place.

The matrix product is an argument, because its fastest form depends on the machine (see `kernels`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From ``x [B, K]`` and a weight ``[N, K]`` to ``x · Wᵀ``, ``[B, N]``."""


class FeedForwardWeights(NamedTuple):
    """Weights of the second half of a layer."""

    norm: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any) -> "FeedForwardWeights":
        """Return those of a stock layer."""
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        return cls(norm.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, norm.eps)


class GatedDeltaWeights(NamedTuple):
    """Weights of a gated-delta mixer and its numbers of heads."""

    norm: torch.Tensor
    qkv: torch.Tensor
    z: torch.Tensor
    b: torch.Tensor
    a: torch.Tensor
    conv: torch.Tensor
    dt_bias: torch.Tensor
    log_decay: torch.Tensor
    out_norm: torch.Tensor
    out: torch.Tensor
    key_heads: int
    value_heads: int
    eps: float
    out_eps: float

    @classmethod
    def of(cls, layer: Any) -> "GatedDeltaWeights":
        """Return those of a stock layer."""
        mixer = layer.linear_attn
        return cls(
            layer.input_layernorm.weight,
            mixer.in_proj_qkv.weight,
            mixer.in_proj_z.weight,
            mixer.in_proj_b.weight,
            mixer.in_proj_a.weight,
            mixer.conv1d.weight,
            mixer.dt_bias,
            mixer.A_log,
            mixer.norm.weight,
            mixer.out_proj.weight,
            mixer.num_k_heads,
            mixer.num_v_heads,
            layer.input_layernorm.eps,
            mixer.norm.variance_epsilon,
        )


class AttentionWeights(NamedTuple):
    """Weights of a full-attention mixer."""

    norm: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any) -> "AttentionWeights":
        """Return those of a stock layer."""
        mixer = layer.self_attn
        return cls(
            layer.input_layernorm.weight,
            mixer.q_proj.weight,
            mixer.k_proj.weight,
            mixer.v_proj.weight,
            mixer.q_norm.weight,
            mixer.k_norm.weight,
            layer.input_layernorm.eps,
        )


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return ``x / rms(x) · (1 + weight)``, computed in fp32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (1.0 + weight.float())).to(x.dtype)


def feed_forward(x: torch.Tensor, w: FeedForwardWeights, product: Product) -> torch.Tensor:
    """Return ``x + down(SiLU(gate(norm x)) · up(norm x))``, ``[B, H]``."""
    normed = rms_norm(x, w.norm, w.eps)
    return x + product(F.silu(product(normed, w.gate)) * product(normed, w.up), w.down)


def delta_layer(
    x: torch.Tensor,
    w: GatedDeltaWeights,
    after: FeedForwardWeights,
    inputs: torch.Tensor,
    state: torch.Tensor,
    product: Product,
) -> torch.Tensor:
    """Return a gated-delta layer's output, ``[B, H]``; its states go on in place.

    With decay ``γ``, write strength ``β`` and state ``S [Dk, Dv]`` of a head::

        S ← γ S + k (β (v − γ Sᵀk))ᵀ,   o = Sᵀq

    Args:
        x: the layer's input, ``[B, H]``.
        w: the mixer's weights.
        after: the feed-forward's.
        inputs: the convolution's last inputs, ``[B, C, 4]``.
        state: ``S``, ``[B, heads, Dk, Dv]`` fp32.
        product: how a matrix is applied.
    """
    count, heads, key_dim, value_dim = state.shape
    normed = rms_norm(x, w.norm, w.eps)
    inputs.copy_(torch.cat([inputs[:, :, 1:], product(normed, w.qkv)[:, :, None]], dim=-1))
    mixed = F.silu((inputs.float() * w.conv[:, 0].float()).sum(-1))
    q, k, v = mixed.split([w.key_heads * key_dim, w.key_heads * key_dim, heads * value_dim], dim=-1)
    q, k = (_unit(part.view(count, w.key_heads, key_dim)) for part in (q, k))
    if heads != w.key_heads:
        q, k = (part.repeat_interleave(heads // w.key_heads, dim=1) for part in (q, k))
    q = q * key_dim**-0.5
    v = v.view(count, heads, value_dim)
    write = product(normed, w.b).float().sigmoid()[..., None]
    decay = (-w.log_decay.float().exp() * F.softplus(product(normed, w.a).float() + w.dt_bias)).exp()[..., None]
    # Both reads of the state at once; the read by q after the write follows from the one before it.
    read = torch.matmul(torch.stack([k, q], dim=2), state) * decay[..., None]
    delta = write * (v - read[:, :, 0])
    mixed = read[:, :, 1] + (q * k).sum(-1, keepdim=True) * delta
    state.mul_(decay[..., None]).addcmul_(k[..., None], delta[:, :, None])
    mixed = mixed * torch.rsqrt(mixed.square().mean(-1, keepdim=True) + w.out_eps)
    mixed = mixed * w.out_norm.float() * F.silu(product(normed, w.z).float()).view(mixed.shape)
    return feed_forward(x + product(mixed.to(x.dtype).flatten(1), w.out), after, product)


def attention_inputs(
    x: torch.Tensor, w: AttentionWeights, cos: torch.Tensor, sin: torch.Tensor, product: Product
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries and gates ``[B, heads, D]``, keys and values ``[B, kv heads, D]``.

    Args:
        x: the layer's input, ``[B, H]``.
        w: the mixer's weights.
        cos: of the sequences' positions, ``[B, 1, R]``; the first ``R`` numbers of a head turn.
        sin: of the same.
        product: how a matrix is applied.
    """
    count, head_dim = len(x), len(w.q_norm)
    normed = rms_norm(x, w.norm, w.eps)
    q, gate = product(normed, w.q).view(count, -1, 2 * head_dim).split(head_dim, dim=-1)
    k = product(normed, w.k).view(count, -1, head_dim)
    v = product(normed, w.v).view(count, -1, head_dim)
    q, k = (_turned(rms_norm(part, norm, w.eps), cos, sin) for part, norm in ((q, w.q_norm), (k, w.k_norm)))
    return q, gate, k, v


def attention_outputs(
    x: torch.Tensor,
    mixed: torch.Tensor,
    gate: torch.Tensor,
    out: torch.Tensor,
    after: FeedForwardWeights,
    product: Product,
) -> torch.Tensor:
    """Return a full-attention layer's output, ``[B, H]``, from its input and what the heads read, ``[B, heads, D]``."""
    gated = (mixed * gate.sigmoid()).flatten(1)
    return feed_forward(x + product(gated, out), after, product)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return ``[B, heads, D]`` with the first ``R`` numbers of each head turned by the rotary angles."""
    rotary, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    low, high = rotary.chunk(2, dim=-1)
    return torch.cat([rotary * cos + torch.cat([-high, low], dim=-1) * sin, rest], dim=-1)
