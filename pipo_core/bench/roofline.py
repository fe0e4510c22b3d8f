"""Hardware limits of the time per token and of the time to the first token, computed from shapes alone.

A decode step has two parts (`pipo_core.decode.traffic`): products with weights, and what is read of the sequences'
caches. Layer by layer one waits for the other, so their times add up. Each part takes as long as the memory needs for
its bytes or the arithmetic units for its operations, whichever is longer (the roofline of Williams et al., 2009)::

    step ≥ Σ_part max(bytes / bandwidth, operations / peak)

For few sequences the weights' bytes count; for many sequences or verified positions their products do, while keys and
values go on counting by their bytes. A prefill must do its multiplications; the peak limits it. The limit over a
measured time tells how much can still be gained. Only the network's bytes and operations count. Sampling, launches and
synchronisations do not, so the figures are lower bounds of the time. An engine that reads caches for some sequences
while it multiplies for others would need less.
"""

import re
from dataclasses import dataclass

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import step_parts
from pipo_core.model.sizes import BF16, Widths, model_sizes
from pipo_core.recipes.methods import METHODS, MethodName


@dataclass(frozen=True)
class Device:
    """A device's peaks: bytes per second from its memory, and dense operations per second (of a GPU in bf16)."""

    name: str
    bandwidth: float
    flops: float

    @property
    def balance(self) -> float:
        """Operations for each byte at which arithmetic and memory are equally busy."""
        return self.flops / self.bandwidth


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
    config: Qwen3_5TextConfig, method: MethodName, device: Device, load: StepLoad, *, widths: Widths = BF16
) -> float:
    """Return the least seconds of a decode step (equation in the module's docstring)."""
    parts = step_parts(config, method, load, widths=widths)
    return sum(max(part.bytes / device.bandwidth, part.operations / device.flops) for part in parts)


def tpot_limit(
    config: Qwen3_5TextConfig,
    method: MethodName,
    device: Device,
    tokens_per_step: float,
    load: StepLoad,
    *,
    widths: Widths = BF16,
) -> float:
    """Return the least seconds per real token of each sequence, if a step writes ``tokens_per_step`` on average."""
    return step_limit(config, method, device, load, widths=widths) / tokens_per_step


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


def ttft_limit(config: Qwen3_5TextConfig, method: MethodName, device: Device, tokens: int) -> float:
    """Return the least seconds to the end of the first step."""
    return prefill_flops(config, method, tokens) / device.flops
