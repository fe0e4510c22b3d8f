"""What the hardware allows: seconds a token and seconds to the first token, from shapes alone.

A decode step must read every weight that it uses once, and each sequence's keys, values and states. A prefill must do
its multiplications. No implementation is faster than the memory's bandwidth for the one and the arithmetic's peak for
the other, so a measured time divided into these limits says how much is left to gain. Only bytes and operations of the
network count; sampling, launches and synchronisations do not, so a limit is a limit.

Bytes of a step at batch ``B`` and ``b`` bytes a weight::

    b · weights + B · (cache + 2 · states)

Each method says which weights and how much of the cache its step reads: `Method.step_weights`,
`Method.step_cache_bytes`. The states of the gated-delta layers are read and written. Only full-attention layers have
keys and values.
"""

from dataclasses import dataclass

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.model.sizes import model_sizes
from pipo_core.recipes.methods import METHODS, MethodName


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


def step_bytes(config: Qwen3_5TextConfig, method: MethodName, load: StepLoad, *, weight_bytes: int = 2) -> float:
    """Return the bytes that one decode step moves at least, see the module.

    Args:
        config: the shape.
        method: its name.
        load: what the step works on.
        weight_bytes: of weights, keys and values.
    """
    sizes, decoder = model_sizes(config, weight_bytes), METHOD_CLASSES[method]
    per_sequence = decoder.step_cache_bytes(sizes, load) + 2 * sizes.states
    return weight_bytes * decoder.step_weights(sizes, load) + load.batch * per_sequence


def tpot_limit(
    config: Qwen3_5TextConfig,
    method: MethodName,
    device: Device,
    tokens_a_step: float,
    load: StepLoad,
    *,
    weight_bytes: int = 2,
) -> float:
    """Return seconds a real token of each sequence at least, where a step writes ``tokens_a_step``."""
    return step_bytes(config, method, load, weight_bytes=weight_bytes) / device.bandwidth / tokens_a_step


def prefill_flops(config: Qwen3_5TextConfig, method: MethodName, tokens: int) -> float:
    """Return the multiplications and additions that reading a prompt takes at least, the first step's head included.

    Two a weight and position; causal attention ``2 · T² · heads · D`` a layer; the gated-delta recurrence
    ``6 · Dk · Dv`` a head and position. Of the MTP block only keys and values, and those of all positions.
    """
    sizes, spec = model_sizes(config), METHODS[method]
    h, keys = config.hidden_size, config.num_key_value_heads * config.head_dim
    full = sum(kind == "full_attention" for kind in config.layer_types)
    positions = tokens / spec.cache_width
    flops: float = 2 * sizes.layers * positions + 2 * sizes.head
    flops += full * 2 * positions**2 * config.num_attention_heads * config.head_dim
    recurrence = config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim
    flops += (len(config.layer_types) - full) * 6 * recurrence * positions
    if spec.uses_mtp:
        flops += 2 * (2 * h * h + 2 * h * keys) * positions
    if spec.reads_pairs:
        flops += 2 * sizes.compressor * positions
    return flops


def ttft_limit(config: Qwen3_5TextConfig, method: MethodName, device: Device, tokens: int) -> float | None:
    """Return seconds to the first step's end at least; None where the device's arithmetic is not known."""
    return prefill_flops(config, method, tokens) / device.flops if device.flops else None
