"""Hardware limits of the time per token and of the time to the first token, computed from shapes alone.

A decode step must read each weight that it uses once, and the keys, values and states of each sequence; the memory's
bandwidth limits it, and for many sequences or verified positions the peak of the arithmetic units. A prefill must do
its multiplications; the peak limits it. The limit over a measured time tells how much can still be gained. Only the
network's bytes and operations count. Sampling, launches and synchronisations do not, so the figures are lower bounds of
the time.

The bytes and operations of a step are those of `pipo_core.decode.traffic`.
"""

import re
from dataclasses import dataclass

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import step_bytes, step_operations
from pipo_core.model.sizes import model_sizes
from pipo_core.recipes.methods import METHODS, MethodName


@dataclass(frozen=True)
class Device:
    """A device's peaks: bytes per second from its memory, and dense bf16 operations per second (0: not known)."""

    name: str
    bandwidth: float
    flops: float

    @property
    def balance(self) -> float | None:
        """Operations for each byte at which arithmetic and memory are equally busy; None if the peak is not known."""
        return self.flops / self.bandwidth if self.flops else None


DEVICES = {
    device.name: device
    for device in (
        Device("H200", 4.8e12, 989e12),
        Device("H100", 3.35e12, 989e12),
        Device("H20", 4.0e12, 148e12),
        Device("A100-SXM4-80GB", 2.04e12, 312e12),
        Device("A100-SXM4-40GB", 1.555e12, 312e12),
        Device("L40S", 0.864e12, 362e12),
        Device("L4", 0.3e12, 121e12),
        Device("RTX 4090", 1.008e12, 165e12),
    )
}
"""Manufacturers' figures; each key is part of the name that PyTorch gives the device."""


def known_device(name: str) -> Device | None:
    """Return the entry of `DEVICES` for a device as PyTorch names it; None if there is none.

    A key must stand in the name as a word, with nothing behind it that makes another card of it.
    """
    for key, device in DEVICES.items():
        if re.search(rf"(?<!\w){re.escape(key)}(?!\w)(?! (PCIe|NVL|D\b|SUPER|Laptop))", name, re.IGNORECASE):
            return device
    return None


def step_limit(
    config: Qwen3_5TextConfig, method: MethodName, device: Device, load: StepLoad, *, weight_bytes: int = 2
) -> float:
    """Return the least seconds of a decode step: the longer of moving its bytes and doing its operations."""
    moving = step_bytes(config, method, load, weight_bytes=weight_bytes) / device.bandwidth
    return max(moving, step_operations(config, method, load) / device.flops) if device.flops else moving


def tpot_limit(
    config: Qwen3_5TextConfig,
    method: MethodName,
    device: Device,
    tokens_per_step: float,
    load: StepLoad,
    *,
    weight_bytes: int = 2,
) -> float:
    """Return the least seconds per real token of each sequence, if a step writes ``tokens_per_step`` on average."""
    return step_limit(config, method, device, load, weight_bytes=weight_bytes) / tokens_per_step


def prefill_flops(config: Qwen3_5TextConfig, method: MethodName, tokens: int) -> float:
    """Return the least operations for reading a prompt, the first step's LM head included.

    They are two per weight and position, ``2 · T² · heads · D`` per layer of causal attention over T positions, and
    ``6 · Dk · Dv`` per head and position for the gated-delta recurrence. The MTP block only computes keys and values,
    at all positions.
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
    """Return the least seconds to the end of the first step; None if the device's arithmetic is not known."""
    return prefill_flops(config, method, tokens) / device.flops if device.flops else None
