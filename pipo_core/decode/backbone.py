"""One new position a row through the stock model's layers, written out for speed.

The functions here compute what `Qwen3_5TextModel` computes on a `RowCache`, from the same parameters, without what one
position does not need: the depthwise convolution is a multiply-and-sum over its four inputs (as a convolution in bf16
it is very slow on CPUs without AVX-512-BF16), the query heads that share a key head are read as queries of one head (no
copy of the keys), and the recurrent state is read and written in place.

A matrix times one row is bound by the memory's bandwidth, of which a stock product on a CPU reaches half. So the
arithmetic takes its matrix product as an argument: `torch.nn.functional.linear`, or, compiled, `multiply_and_sum`,
which reaches nearly all. `compile_steps` asks for the latter.
"""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5TextModel

from pipo_core.decode.cache import RowCache
from pipo_core.model.compressor import LinearCompressor, MLPCompressor
from pipo_core.model.confidence import ConfidenceHead
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From ``x [B, K]`` and a weight ``[N, K]`` to ``x · Wᵀ``, ``[B, N]``."""

_FUSED = all(importlib.util.find_spec(name) is not None for name in ("fla", "causal_conv1d"))
"""Whether the stock gated-delta layer has its kernels for GPUs."""

_logger = logging.getLogger(__name__)


class FeedForward(NamedTuple):
    """Weights of the second half of a layer."""

    norm: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any) -> "FeedForward":
        """Return those of a stock layer."""
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        return cls(norm.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight, norm.eps)


class Delta(NamedTuple):
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
    def of(cls, layer: Any) -> "Delta":
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


class Attention(NamedTuple):
    """Weights of a full-attention mixer."""

    norm: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any) -> "Attention":
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


# ---------------------------------------------------------------------- the arithmetic


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return ``x / rms(x) · (1 + weight)``, computed in fp32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (1.0 + weight.float())).to(x.dtype)


def multiply_and_sum(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``x · Wᵀ``, ``[1, N]``, of one row ``[1, K]``, summed in fp32: fast when compiled, and only then."""
    row = x[0].float()
    row = row.as_strided(row.shape, row.stride())  # else the compiler computes the row anew for each of the N sums
    return (weight.float() * row).sum(-1).to(x.dtype)[None]


def feed_forward(x: torch.Tensor, w: FeedForward, product: Product) -> torch.Tensor:
    """Return ``x + down(SiLU(gate(norm x)) · up(norm x))``, ``[B, H]``."""
    normed = rms_norm(x, w.norm, w.eps)
    return x + product(F.silu(product(normed, w.gate)) * product(normed, w.up), w.down)


def delta_layer(
    x: torch.Tensor, w: Delta, after: FeedForward, inputs: torch.Tensor, state: torch.Tensor, product: Product
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
    rows, heads, key_dim, value_dim = state.shape
    normed = rms_norm(x, w.norm, w.eps)
    inputs.copy_(torch.cat([inputs[:, :, 1:], product(normed, w.qkv)[:, :, None]], dim=-1))
    mixed = F.silu((inputs.float() * w.conv[:, 0].float()).sum(-1))
    q, k, v = mixed.split([w.key_heads * key_dim, w.key_heads * key_dim, heads * value_dim], dim=-1)
    q, k = (_unit(part.view(rows, w.key_heads, key_dim)) for part in (q, k))
    if heads != w.key_heads:
        q, k = (part.repeat_interleave(heads // w.key_heads, dim=1) for part in (q, k))
    q = q * key_dim**-0.5
    v = v.view(rows, heads, value_dim)
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
    x: torch.Tensor, w: Attention, cos: torch.Tensor, sin: torch.Tensor, product: Product
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries and gates ``[B, heads, D]``, keys and values ``[B, kv heads, D]``.

    Args:
        x: the layer's input, ``[B, H]``.
        w: the mixer's weights.
        cos: of the rows' positions, ``[B, 1, R]``; the first ``R`` numbers of a head turn.
        sin: of the same.
        product: how a matrix is applied.
    """
    rows, head_dim = len(x), len(w.q_norm)
    normed = rms_norm(x, w.norm, w.eps)
    q, gate = product(normed, w.q).view(rows, -1, 2 * head_dim).split(head_dim, dim=-1)
    k = product(normed, w.k).view(rows, -1, head_dim)
    v = product(normed, w.v).view(rows, -1, head_dim)
    q, k = (_turned(rms_norm(part, norm, w.eps), cos, sin) for part, norm in ((q, w.q_norm), (k, w.k_norm)))
    return q, gate, k, v


def attention_outputs(
    x: torch.Tensor, mixed: torch.Tensor, gate: torch.Tensor, out: torch.Tensor, after: FeedForward, product: Product
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


# ---------------------------------------------------------------------- how it runs


class Kernels(NamedTuple):
    """The arithmetic above as it runs: plain or compiled."""

    product: Product
    delta_layer: Callable[..., torch.Tensor]
    attention_inputs: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]
    attention_outputs: Callable[..., torch.Tensor]
    matrix: Product


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


_PLAIN = Kernels(F.linear, delta_layer, attention_inputs, attention_outputs, F.linear)
_COMPILED = Kernels(
    multiply_and_sum,
    _compiled(delta_layer),
    _compiled(attention_inputs),
    _compiled(attention_outputs),
    torch.compile(multiply_and_sum, fullgraph=True, dynamic=True),  # one kernel for heads of any size
)


def _kernels(model: Qwen3_5ForCausalPIPO, rows: int) -> Kernels:
    return _COMPILED if model.compiled_steps and rows == 1 else _PLAIN


def compile_steps(model: Qwen3_5ForCausalPIPO) -> None:
    """Let the model's decode steps at one row on a CPU run compiled, if this machine can compile.

    It needs a C++ compiler; without one the plain form stays, and a warning says so. The first steps then take up to a
    minute, a few seconds where the compiler's cache on disk has them.
    """
    weight = model.lm_head.weight
    if weight.device.type != "cpu":
        _logger.warning("compiled steps are for CPUs; on %s the plain ones run", weight.device)
        return
    try:
        with torch.inference_mode():
            _COMPILED.matrix(weight.new_zeros(1, 64), weight.new_zeros(32, 64))
    except (RuntimeError, OSError) as error:  # dynamo's errors are RuntimeErrors
        _logger.warning("steps run uncompiled, for this machine cannot compile them: %s", str(error).splitlines()[0])
        return
    model.compiled_steps = True


def decode_pass(model: Qwen3_5ForCausalPIPO, inputs: torch.Tensor, cache: RowCache) -> torch.Tensor:
    """Return the backbone's final-normed hidden states ``[B, H]`` of one new position a row, ``[B, H]``.

    The cache must have room for the position; it is stored there, and `RowCache.advance` makes it part of the past.
    """
    text: Qwen3_5TextModel = model.text_model
    if not all(_is_bare(layer) for layer in text.layers):
        return _stock_pass(text, inputs, cache)
    run = _kernels(model, len(inputs))
    cos, sin, mask = _angles(text.rotary_emb, inputs, cache)
    hidden = inputs
    for index, layer in enumerate(text.layers):
        if layer.block_type == "full_attention":
            hidden = _attend(layer, index, hidden, cache, cos, sin, mask, run)
        elif _FUSED and inputs.is_cuda:
            mixed = layer.linear_attn(layer.input_layernorm(hidden)[:, None], cache_params=cache)
            hidden = feed_forward(hidden + mixed[:, 0], FeedForward.of(layer), run.product)
        else:
            states: Any = cache.layers[index]
            weights = Delta.of(layer), FeedForward.of(layer)
            hidden = run.delta_layer(hidden, *weights, states.conv_states[0], states.recurrent_states[0], run.product)
    return rms_norm(hidden, text.norm.weight, text.norm.eps)


def mtp_pass(
    model: Qwen3_5ForCausalPIPO, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor, cache: RowCache
) -> torch.Tensor:
    """Return ``m_i``, ``[B, H]``, from ``e(t_{2i+2})`` and ``h_i``, both ``[B, H]``, with the block's own cache."""
    block = model.mtp
    if not _is_bare(block.layers[0]):
        return _stock_mtp_pass(model, token_embeddings, backbone_hidden, cache)
    run = _kernels(model, len(backbone_hidden))
    norms = (block.pre_fc_norm_embedding, token_embeddings), (block.pre_fc_norm_hidden, backbone_hidden)
    halves = [rms_norm(half, norm.weight, norm.eps) for norm, half in norms]
    fused = run.matrix(torch.cat(halves, dim=-1), block.fc.weight)
    cos, sin, mask = _angles(block.rotary_emb, fused, cache)
    hidden = _attend(block.layers[0], 0, fused, cache, cos, sin, mask, run)
    return rms_norm(hidden, block.norm.weight, block.norm.eps)


def _is_bare(layer: Any) -> bool:
    """Whether a layer's weights are all there is to it; adapters stand around its modules and must run with them."""
    return isinstance(layer.mlp.down_proj, nn.Linear)


def _stock_pass(text: Qwen3_5TextModel, inputs: torch.Tensor, cache: RowCache) -> torch.Tensor:
    """Return what `decode_pass` does, by the modules' own forward."""
    hidden: torch.Tensor = text(
        inputs_embeds=inputs[:, None],
        position_ids=cache.positions(),
        attention_mask={"full_attention": cache.mask(), "linear_attention": None},
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden[:, 0]


def _stock_mtp_pass(
    model: Qwen3_5ForCausalPIPO, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor, cache: RowCache
) -> torch.Tensor:
    """Return what `mtp_pass` does, by the modules' own forward."""
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
    if not isinstance(compressor, MLPCompressor | LinearCompressor):  # what trains in full stands in a wrapper
        wrapped: torch.Tensor = compressor(pair_embeddings)
        return wrapped
    run = _kernels(model, len(pair_embeddings))
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
    inner = F.silu(_kernels(model, len(normed)).matrix(normed, head.fc1.weight))
    return F.linear(inner.float(), head.fc2.weight.float()).squeeze(-1).sigmoid()


def lm_head(model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor) -> torch.Tensor:
    """Return logits ``[B, V]`` of hidden states ``[B, H]``."""
    if _kernels(model, len(hidden)) is _COMPILED:
        return project(model, hidden, model.lm_head.weight)
    logits: torch.Tensor = model.lm_head(hidden)
    return logits


def project(model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``hidden · Wᵀ``, ``[B, N]``, of hidden states ``[B, H]`` and a weight ``[N, H]``."""
    return _kernels(model, len(hidden)).matrix(hidden, weight)


def _angles(
    rotary: Any, inputs: torch.Tensor, cache: RowCache
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return cosines and sines ``[B, 1, R]`` of the rows' positions, and the mask; one row sees all of its cache."""
    cos, sin = rotary(inputs, cache.positions()[None])
    return cos, sin, None if cache.count == 1 else cache.mask()


def _attend(
    layer: Qwen3_5DecoderLayer,
    index: int,
    hidden: torch.Tensor,
    cache: RowCache,
    cos: torch.Tensor,
    sin: torch.Tensor,
    mask: torch.Tensor | None,
    run: Kernels,
) -> torch.Tensor:
    """Return a full-attention layer's output, ``[B, H]``, and store keys and values in the cache's layer ``index``."""
    mixer: Any = layer.self_attn
    q, gate, k, v = run.attention_inputs(hidden, Attention.of(layer), cos, sin, run.product)
    keys, values = cache.update(k[:, :, None], v[:, :, None], index)
    # The query heads of one key head stand where else a sequence's queries stand: keys need not be repeated.
    grouped = q.view(len(q), keys.shape[1], -1, q.shape[-1])
    mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=mixer.scaling)
    after = FeedForward.of(layer)
    return run.attention_outputs(hidden, mixed.reshape(q.shape), gate, mixer.o_proj.weight, after, run.product)
