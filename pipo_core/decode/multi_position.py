"""Speculative passes: several new positions a sequence, of which each sequence accepts some.

Verifying drafts needs this: of the positions that a step reads, each sequence accepts those whose drafts were right.
Keys and values of the others are overwritten later, but a recurrent state cannot go back. So gated-delta layers return
the inputs that each position adds to their states (`recurrence.Inputs`), and `SequenceCache.commit` applies as many as
each sequence accepts. For one position per sequence, `backbone.decode_pass` is faster.

Source of the recurrence: Yang et al., *Gated Delta Networks*, arXiv 2412.06464::

    S_t = exp(g_t) · S_{t−1} + k_t ⊗ β_t (v_t − exp(g_t) · S_{t−1}ᵀ k_t),    o_t = S_tᵀ q_t
"""

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from transformers.models.qwen3_5.modeling_qwen3_5 import apply_rotary_pos_emb, l2norm

from pipo_core.decode.attention import attend, needs_mask
from pipo_core.decode.cache import GatedDeltaStates, SequenceCache
from pipo_core.decode.recurrence import Inputs, advance, convolve
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


def run_backbone(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, inputs: torch.Tensor, *, speculative: bool = False
) -> tuple[torch.Tensor, list[Inputs]]:
    """Return final-normed hidden states ``[B, W, H]`` of ``W`` new positions a sequence, and what `commit` needs.

    Args:
        model: the network.
        cache: the sequences' past; it has room for the new positions (`SequenceCache.reserve`).
        inputs: embeddings or latents, ``[B, W, H]``.
        speculative: leave it to `SequenceCache.commit` how many positions each sequence accepts. Otherwise the
            recurrent states hold all of them, and `SequenceCache.advance` accepts them.

    Returns:
        The hidden states, and for `SequenceCache.commit` the inputs of each gated-delta layer; none if not speculative.
    """
    backbone = model.text_model
    view = _View.of(cache, backbone.rotary_emb, inputs)
    pending = []
    hidden = inputs
    for index, (layer, states) in enumerate(zip(backbone.layers, cache.layers, strict=True)):
        normed = layer.input_layernorm(hidden)
        if isinstance(states, GatedDeltaStates):
            mixed, taken = _mix(layer.linear_attn, normed, states, speculative)
            pending.append(taken)
        else:
            mixed = _attend(layer.self_attn, normed, index, view)
        hidden = hidden + mixed
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    normed = backbone.norm(hidden)
    return normed, pending if speculative else []


def run_mtp(
    model: Qwen3_5ForCausalPIPO, cache: SequenceCache, tokens: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Return the MTP block's output ``[B, W, H]`` at ``W`` new positions a sequence, which are not accepted yet.

    Args:
        model: the network.
        cache: the block's own, with room.
        tokens: each position's next token, ``[B, W]``.
        hidden: the backbone's final-normed hidden states of the same positions, ``[B, W, H]``.
    """
    block = model.mtp
    layer: Any = block.layers[0]
    fused = block.fuse(model.embed(tokens), hidden)
    view = _View.of(cache, block.rotary_emb, fused)
    mixed = fused + _attend(layer.self_attn, layer.input_layernorm(fused), 0, view)
    drafted: torch.Tensor = block.norm(mixed + layer.mlp(layer.post_attention_layernorm(mixed)))
    return drafted


class _View(NamedTuple):
    """What attention layers share in a pass: the cache, which positions are new, and which they may look at."""

    cache: SequenceCache
    angles: tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each [B, W, R]
    mask: torch.Tensor | None  # [B, 1, W, K]

    @classmethod
    def of(cls, cache: SequenceCache, rotary: Any, inputs: torch.Tensor) -> "_View":
        """Return the view of new positions ``[B, W, H]``."""
        width = inputs.shape[1]
        mask = cache.mask(width) if needs_mask(cache, width) else None
        return cls(cache, rotary(inputs, cache.positions(width)[None]), mask)


def _attend(mixer: Any, hidden: torch.Tensor, index: int, view: _View) -> torch.Tensor:
    """Return the full-attention mixer's output ``[B, W, H]`` (stock `Qwen3_5Attention`); keys and values are stored.

    Args:
        mixer: the stock module.
        hidden: its normed input, ``[B, W, H]``.
        index: of the cache's layer.
        view: of the cache.
    """
    size = mixer.head_dim
    q, gate = _heads(mixer.q_proj(hidden), 2 * size).chunk(2, dim=-1)
    k, v = (_heads(part, size) for part in (mixer.k_proj(hidden), mixer.v_proj(hidden)))
    q, k = apply_rotary_pos_emb(mixer.q_norm(q), mixer.k_norm(k), *view.angles, unsqueeze_dim=2)
    keys, values = view.cache.update(k.transpose(1, 2), v.transpose(1, 2), index)
    mixed = attend(q, keys, values, view.cache, view.mask, mixer.scaling)
    output: torch.Tensor = mixer.o_proj((mixed * gate.sigmoid()).flatten(2))
    return output


def _mix(mixer: Any, hidden: torch.Tensor, states: GatedDeltaStates, speculative: bool) -> tuple[torch.Tensor, Inputs]:
    """Return the gated-delta mixer's output ``[B, W, H]`` (stock `Qwen3_5GatedDeltaNet`) and what its states took."""
    batch, width, _ = hidden.shape
    new = mixer.in_proj_qkv(hidden).transpose(1, 2)
    mixed = F.silu(convolve(states.conv, new, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias)).transpose(1, 2)
    q, k, v = mixed.split([mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=-1)
    shared = mixer.num_v_heads // mixer.num_k_heads
    q, k = (_heads(part, mixer.head_k_dim).repeat_interleave(shared, dim=2) for part in (q, k))
    v = _heads(v, mixer.head_v_dim)
    taken = Inputs(
        conv=new,
        decay=-mixer.A_log.float().exp() * F.softplus(mixer.in_proj_a(hidden).float() + mixer.dt_bias),
        beta=mixer.in_proj_b(hidden).sigmoid().float(),
        k=l2norm(k.float(), dim=-1, eps=1e-6),
        v=v.float(),
    )
    q = l2norm(q.float(), dim=-1, eps=1e-6) * mixer.head_k_dim**-0.5
    state = states.recurrent.clone() if speculative else states.recurrent
    outputs = []
    for place in range(width):
        advance(state, taken, place)
        outputs.append(torch.matmul(q[:, place, :, None], state).squeeze(2))  # o_t = S_tᵀ q_t
    if not speculative:
        states.append_inputs(taken)
    output = torch.stack(outputs, dim=1).to(hidden.dtype)
    gate = mixer.in_proj_z(hidden)
    gated = mixer.norm(output.reshape(-1, mixer.head_v_dim), gate.reshape(-1, mixer.head_v_dim))
    mixed_out: torch.Tensor = mixer.out_proj(gated.reshape(batch, width, -1))
    return mixed_out, taken


def _heads(part: torch.Tensor, size: int) -> torch.Tensor:
    return part.reshape(*part.shape[:2], -1, size)
