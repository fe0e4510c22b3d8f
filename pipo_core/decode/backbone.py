"""The decode pass: one new position per sequence, through the model and its caches.

It computes the same as `Qwen3_5TextModel`, from the same parameters. The arithmetic is in `layers`. If adapters wrap
the layers, the stock layers' forward runs instead.
"""

import importlib.util
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5TextModel

from pipo_core.decode.attention import attend, needs_mask
from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.kernels import PLAIN, Kernels, kernels_for
from pipo_core.decode.layers import (
    AttentionWeights,
    FeedForwardWeights,
    GatedDeltaWeights,
    feed_forward,
    rms_norm,
)
from pipo_core.model.compressor import LinearCompressor, MLPCompressor
from pipo_core.model.confidence import ConfidenceHead
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.stock_cache import cache_keyword

_FUSED = all(importlib.util.find_spec(name) is not None for name in ("fla", "causal_conv1d"))
"""Whether the stock gated-delta layer has its kernels for GPUs."""


def decode_pass(model: Qwen3_5ForCausalPIPO, inputs: torch.Tensor, cache: SequenceCache) -> torch.Tensor:
    """Return the backbone's final-normed hidden states ``[B, H]`` of one new position a sequence, ``[B, H]``.

    The cache must have room for the position. The pass stores it there; `SequenceCache.advance` accepts it.
    """
    text: Qwen3_5TextModel = model.text_model
    if not all(_is_bare(layer) for layer in text.layers):
        return _stock_pass(text, inputs, cache)
    run = kernels_for(model, len(inputs))
    cos, sin, mask = _angles(text.rotary_emb, inputs, cache)
    hidden = inputs
    for index, layer in enumerate(text.layers):
        if layer.block_type == "full_attention":
            hidden = _attend(layer, index, hidden, cache, cos, sin, mask, run)
        elif _FUSED and inputs.is_cuda and run is PLAIN:
            mixed = layer.linear_attn(layer.input_layernorm(hidden)[:, None], cache)
            hidden = feed_forward(hidden + mixed[:, 0], FeedForwardWeights.of(layer), run.product)
        else:
            states: Any = cache.layers[index]
            weights = GatedDeltaWeights.of(layer), FeedForwardWeights.of(layer)
            hidden = run.delta_layer(hidden, *weights, states.conv, states.recurrent, run.product)
    return rms_norm(hidden, text.norm.weight, text.norm.eps)


def mtp_pass(
    model: Qwen3_5ForCausalPIPO, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor, cache: SequenceCache
) -> torch.Tensor:
    """Return ``m_i``, ``[B, H]``, from ``e(t_{2i+2})`` and ``h_i``, both ``[B, H]``, with the block's own cache."""
    block = model.mtp
    if not _is_bare(block.layers[0]):
        return _stock_mtp_pass(model, token_embeddings, backbone_hidden, cache)
    run = kernels_for(model, len(backbone_hidden))
    norms = (block.pre_fc_norm_embedding, token_embeddings), (block.pre_fc_norm_hidden, backbone_hidden)
    halves = [rms_norm(half, norm.weight, norm.eps) for norm, half in norms]
    fused = run.matrix(torch.cat(halves, dim=-1), block.fc.weight)
    cos, sin, mask = _angles(block.rotary_emb, fused, cache)
    hidden = _attend(block.layers[0], 0, fused, cache, cos, sin, mask, run)
    return rms_norm(hidden, block.norm.weight, block.norm.eps)


def _is_bare(layer: Any) -> bool:
    """Return whether no adapter wraps a module of the layer: adapters must run with the layer."""
    return isinstance(layer.mlp.down_proj, nn.Linear)


def _stock_pass(text: Qwen3_5TextModel, inputs: torch.Tensor, cache: SequenceCache) -> torch.Tensor:
    """Return the result of `decode_pass`, computed by the stock modules' forward."""
    hidden: torch.Tensor = text(
        inputs_embeds=inputs[:, None],
        position_ids=cache.positions(),
        attention_mask={"full_attention": cache.mask(), "linear_attention": None},
        use_cache=True,
        **cache_keyword(cache),
    ).last_hidden_state
    return hidden[:, 0]


def _stock_mtp_pass(
    model: Qwen3_5ForCausalPIPO, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor, cache: SequenceCache
) -> torch.Tensor:
    """Return the result of `mtp_pass`, computed by the stock modules' forward."""
    drafted: torch.Tensor = model.mtp(
        token_embeddings[:, None],
        backbone_hidden[:, None],
        position_ids=cache.positions(),
        attention_mask=cache.mask(),
        cache=cache,
    )
    return drafted[:, 0]


def compress(model: Qwen3_5ForCausalPIPO, pair_embeddings: torch.Tensor) -> torch.Tensor:
    """Return the latents ``z_i``, ``[B, H]``, of pairs of embeddings, ``[B, 2, H]``, by either kind of compressor."""
    compressor: Any = model.compressor
    if not isinstance(compressor, MLPCompressor | LinearCompressor):  # PEFT wraps modules that train in full
        wrapped: torch.Tensor = compressor(pair_embeddings)
        return wrapped
    run = kernels_for(model, len(pair_embeddings))
    first, *others = (layer for layer in compressor.modules() if isinstance(layer, nn.Linear))
    latents = run.matrix(pair_embeddings.flatten(1), first.weight)
    latents = latents + first.bias.to(latents.dtype)  # autocast multiplies in another format than the bias has
    for layer in others:
        latents = run.matrix(F.silu(latents), layer.weight)
        latents = latents + layer.bias.to(latents.dtype)
    return latents


def gate(model: Qwen3_5ForCausalPIPO, backbone_hidden: torch.Tensor, mtp_hidden: torch.Tensor) -> torch.Tensor:
    """Return ``c_i = sigmoid(w · SiLU(F · RMSNorm([h_i ; m_i])))`` in fp32, ``[B]``, from two ``[B, H]``."""
    head: Any = model.confidence_head
    if not isinstance(head, ConfidenceHead):
        wrapped: torch.Tensor = head(backbone_hidden, mtp_hidden).sigmoid()
        return wrapped
    normed = rms_norm(torch.cat([backbone_hidden, mtp_hidden], dim=-1), head.norm.weight, head.norm.eps)
    inner = F.silu(kernels_for(model, len(normed)).matrix(normed, head.fc1.weight))
    return F.linear(inner.float(), head.fc2.weight.float()).squeeze(-1).sigmoid()


def lm_head(model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor) -> torch.Tensor:
    """Return logits ``[B, V]`` of hidden states ``[B, H]``."""
    if kernels_for(model, len(hidden)) is not PLAIN:
        return project(model, hidden, model.lm_head.weight)
    logits: torch.Tensor = model.lm_head(hidden)
    return logits


def project(model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``hidden · Wᵀ``, ``[B, N]``, of hidden states ``[B, H]`` and a weight ``[N, H]``."""
    return kernels_for(model, len(hidden)).matrix(hidden, weight)


def _angles(
    rotary: Any, inputs: torch.Tensor, cache: SequenceCache
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return cosines and sines ``[B, 1, R]`` of the positions, and a mask if a sequence may not see all positions."""
    cos, sin = rotary(inputs, cache.positions()[None])
    return cos, sin, cache.mask() if needs_mask(cache, 1) else None


def _attend(
    layer: Qwen3_5DecoderLayer,
    index: int,
    hidden: torch.Tensor,
    cache: SequenceCache,
    cos: torch.Tensor,
    sin: torch.Tensor,
    mask: torch.Tensor | None,
    run: Kernels,
) -> torch.Tensor:
    """Return a full-attention layer's output, ``[B, H]``, and store keys and values in the cache's layer ``index``."""
    mixer: Any = layer.self_attn
    q, gate, k, v = run.attention_inputs(hidden, AttentionWeights.of(layer), cos, sin, run.product)
    keys, values = cache.update(k[:, :, None], v[:, :, None], index)
    mixed = attend(q[:, None], keys, values, cache, mask, mixer.scaling)[:, 0]
    after = FeedForwardWeights.of(layer)
    return run.attention_outputs(hidden, mixed, gate, mixer.o_proj.weight, after, run.product)
