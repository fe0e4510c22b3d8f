"""What the hardware allows: seconds a token and seconds to the first token, from shapes alone.

A decode step must read every weight it uses once, and each row's keys, values and states; a prefill must do its
multiplications. No implementation is faster than the memory's bandwidth for the one and the arithmetic's peak for the
other, so a measured time divided into these limits says how much is left to gain. Counted are bytes and operations of
the network alone; sampling, launches and synchronisations are not, so a limit is a limit.

Per step, in bytes a weight ``b`` and batch ``B`` (`Qwen3.5`: only the full-attention layers have keys and values)::

    regular:  b·(layers + head) + B·(KV(context) + 2·states)                     1 token
    mtp:      b·(layers + mtp + head) + B·(KV + KV_mtp + 2·states)                2 tokens
    eagle:    b·(layers + head + n·(mtp + head)) + B·(KV + n·KV_mtp + 2·states)   1 + accepted tokens
    pipo:     b·(layers + compressor + mtp + confidence + head + s·draft head)    1 + a tokens
              + B·(KV(context/2) + KV_mtp(context/2) + 2·states)

``a`` is the share of drafts kept and ``s`` how often a step projects any: ``a`` at batch 1, and 1 beyond.
"""

from dataclasses import dataclass
from typing import Any

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig


@dataclass(frozen=True)
class Device:
    """What a device can do: bytes a second from its memory, and dense bf16 operations a second (0: not known)."""

    name: str
    bandwidth: float
    flops: float


DEVICES = {
    device.name: device
    for device in (
        Device("H200", 4.8e12, 989e12),
        Device("H100", 3.35e12, 989e12),
        Device("A100-SXM4-80GB", 2.04e12, 312e12),
        Device("A100-SXM4-40GB", 1.555e12, 312e12),
        Device("L40S", 0.864e12, 362e12),
        Device("L4", 0.3e12, 121e12),
        Device("RTX 4090", 1.008e12, 165e12),
    )
}
"""Makers' figures, by a part of the name that PyTorch gives the device."""


def known_device(name: str) -> Device | None:
    """Return the table's entry for a device as PyTorch names it, None if there is none."""
    return next((device for key, device in DEVICES.items() if key.lower() in name.lower()), None)


@dataclass(frozen=True)
class Parts:
    """Numbers of weights of a model's parts, and bytes of what a row keeps.

    Attributes:
        layers: the backbone's, without embedding and head.
        head: the LM head.
        compressor: the ``mlp`` form's where the configuration names none.
        mtp: the MTP block's.
        confidence: the confidence head's.
        kv: bytes of keys and values a position of the backbone.
        kv_mtp: the same of the MTP block.
        states: bytes of the gated-delta layers' recurrent states (fp32) and convolution inputs.
    """

    layers: int
    head: int
    compressor: int
    mtp: int
    confidence: int
    kv: int
    kv_mtp: int
    states: int


def parts(config: Qwen3_5TextConfig, weight_bytes: int = 2) -> Parts:
    """Count the parts of a shape; `weight_bytes` is also that of keys and values."""
    h, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
    query, keys = config.num_attention_heads * d, config.num_key_value_heads * d
    attention = h * (2 * query + 2 * keys) + query * h + 2 * d
    feed_forward = 3 * h * inner + 2 * h  # with the layer's two norms
    key_width = config.linear_num_key_heads * config.linear_key_head_dim
    value_heads = config.linear_num_value_heads
    value_width = value_heads * config.linear_value_head_dim
    channels = 2 * key_width + value_width
    kernel = config.linear_conv_kernel_dim
    delta = h * (channels + value_width + 2 * value_heads) + value_width * h
    delta += channels * kernel + 2 * value_heads + config.linear_value_head_dim
    full = sum(kind == "full_attention" for kind in config.layer_types)
    linear = len(config.layer_types) - full
    compressor = 2 * h * h + h if getattr(config, "compressor_type", "mlp") == "linear" else 6 * h * h + 3 * h
    return Parts(
        layers=full * (attention + feed_forward) + linear * (delta + feed_forward) + h,
        head=config.vocab_size * h,
        compressor=compressor,
        mtp=2 * h * h + 3 * h + attention + feed_forward,
        confidence=2 * h * h + 3 * h,
        kv=full * 2 * keys * weight_bytes,
        kv_mtp=2 * keys * weight_bytes,
        states=linear * (value_heads * config.linear_key_head_dim * config.linear_value_head_dim * 4)
        + linear * channels * kernel * weight_bytes,
    )


def step_bytes(
    config: Qwen3_5TextConfig,
    method: str,
    *,
    context: int = 0,
    batch: int = 1,
    acceptance: float = 1.0,
    drafts: int = 3,
    draft_vocab: int | None = None,
    weight_bytes: int = 2,
) -> float:
    """Return the bytes that one decode step moves at least, see the module.

    Args:
        config: the shape.
        method: ``regular``, ``mtp``, ``eagle`` or ``pipo``.
        context: tokens before the step, in each row.
        batch: rows.
        acceptance: ``pipo``: share of drafts kept.
        drafts: ``eagle``: length of the chain.
        draft_vocab: ``pipo``: rows of the draft's LM head; all where None.
        weight_bytes: of weights, keys and values.
    """
    p = parts(config, weight_bytes)
    if method == "pipo":
        draft_head = p.head if draft_vocab is None else draft_vocab * config.hidden_size
        projects = acceptance if batch == 1 else float(acceptance > 0)
        weights = p.layers + p.compressor + p.mtp + p.confidence + p.head + projects * draft_head
        row = (p.kv + p.kv_mtp) * context / 2
    elif method == "mtp":
        weights, row = p.layers + p.mtp + 2 * p.head, (p.kv + p.kv_mtp) * context
    elif method == "eagle":
        weights = p.layers + p.head + drafts * (p.mtp + p.head)
        row = (p.kv + drafts * p.kv_mtp) * context
    else:
        weights, row = p.layers + p.head, p.kv * context
    return weight_bytes * weights + batch * (row + 2 * p.states)


def tpot_limit(config: Qwen3_5TextConfig, method: str, device: Device, tokens_a_step: float, **at: Any) -> float:
    """Return seconds a real token of each row at least, where a step writes ``tokens_a_step``; see `step_bytes`."""
    return step_bytes(config, method, **at) / device.bandwidth / tokens_a_step


def prefill_flops(config: Qwen3_5TextConfig, method: str, tokens: int) -> float:
    """Return the multiplications and additions that reading a prompt takes at least, the first step's head included.

    Two a weight and position; causal attention ``2 · T² · heads · D`` a layer; the gated-delta recurrence
    ``6 · Dk · Dv`` a head and position. Of the MTP block only keys and values, and those of all positions.
    """
    p = parts(config)
    h, keys = config.hidden_size, config.num_key_value_heads * config.head_dim
    full = sum(kind == "full_attention" for kind in config.layer_types)
    positions = tokens / 2 if method == "pipo" else tokens
    flops: float = 2 * p.layers * positions + 2 * p.head
    flops += full * 2 * positions**2 * config.num_attention_heads * config.head_dim
    recurrence = config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim
    flops += (len(config.layer_types) - full) * 6 * recurrence * positions
    if method != "regular":
        flops += 2 * (2 * h * h + 2 * h * keys) * positions
    if method == "pipo":
        flops += 2 * p.compressor * positions
    return flops


def ttft_limit(config: Qwen3_5TextConfig, method: str, device: Device, tokens: int) -> float | None:
    """Return seconds to the first step's end at least; None where the device's arithmetic is not known."""
    return prefill_flops(config, method, tokens) / device.flops if device.flops else None
