"""Memory: the cost of a sequence, the free memory, and which sequences fit together.

Buffers are rectangular, so ``B`` sequences of which the longest may reach ``L`` positions cost
``B · (sequence + L · position)`` bytes. A sequence only starts if it fits with its whole budget, so a running answer
never fails for lack of memory.
"""

from dataclasses import dataclass

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import MachineError

GIB = 2**30
_SHARE = 0.9
"""Share of the free memory that is used; the rest is for fragmentation and other allocations."""
_SHORTEST = 256
"""Positions that every sequence of a batch must be able to have."""


@dataclass(frozen=True)
class SequenceCost:
    """Bytes that a sequence takes: ``fixed`` for any length, plus ``position`` for every cached position."""

    fixed: int
    position: int

    def of(self, sequences: int, positions: int) -> int:
        """Return the bytes of ``sequences`` sequences with buffers for ``positions`` each."""
        return sequences * (self.fixed + positions * self.position)


@dataclass(frozen=True)
class MemoryPlan:
    """The bytes that all sequences together may take (``budget``), and the cost of each."""

    cost: SequenceCost
    budget: int

    def fits(self, *, held: int, sequences: int, longest: int, new: int, read: int, prompt: int) -> bool:
        """Return whether new sequences can start.

        While they start, their prompts are in the prefill cache, once each, in their own group's cache, and, if they
        join others, in the running batch's cache.

        Args:
            held: bytes that the batch's buffers take now.
            sequences: how many will run.
            longest: positions that the longest of them may reach.
            new: how many of them are new.
            read: how many different prompts the new ones have.
            prompt: positions of the longest new prompt.
        """
        copies = read + (new if sequences > new or held else 0)
        return max(held, self.cost.of(sequences, longest)) + self.cost.of(copies, prompt) <= self.budget

    def places(self, *, longest: int, prompt: int) -> int:
        """Return how many sequences of ``longest`` positions can run at once if they start one after the other."""
        return max((self.budget - self.cost.of(2, prompt)) // self.cost.of(1, longest), 0)

    @property
    def max_positions(self) -> int:
        """Return the positions that a single sequence may have, prompt and answer together."""
        return max((self.budget // 2 - self.cost.fixed) // self.cost.position, 0)


def sequence_cost(config: Qwen3_5TextConfig, dtype: torch.dtype, *, with_mtp: bool) -> SequenceCost:
    """Return the cost of a sequence, the sampler's working memory included.

    Args:
        config: the model's shape.
        dtype: of the weights and caches.
        with_mtp: whether sequences also have a cache of the MTP block.
    """
    width = dtype.itemsize
    kinds = config.layer_types[: config.num_hidden_layers]
    keys = config.linear_key_head_dim * config.linear_num_key_heads
    values = config.linear_value_head_dim * config.linear_num_value_heads
    convolution = (2 * keys + values) * config.linear_conv_kernel_dim * width
    recurrent = config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim * 4
    linear = sum(kind != "full_attention" for kind in kinds) * (convolution + recurrent)
    sampler = config.vocab_size * (5 + 8 * 5)  # counts of penalties; scores, sorted scores, sums and ids
    buffers = 2 * (sum(kind == "full_attention" for kind in kinds) + with_mtp)  # keys and values
    position: int = (
        (buffers + 1) * config.num_key_value_heads * config.head_dim * width
    )  # one is there twice while it grows
    return SequenceCost(linear + sampler, position)


def reading_bytes(config: Qwen3_5TextConfig, dtype: torch.dtype, chunk: int) -> int:
    """Return an estimate of the peak bytes of one layer's activations while ``chunk`` positions are read."""
    mixed = 2 * config.linear_key_head_dim * config.linear_num_key_heads
    mixed += config.linear_value_head_dim * config.linear_num_value_heads
    per_position: int = (8 * config.hidden_size + 3 * config.intermediate_size) * dtype.itemsize + 8 * mixed * 4
    return chunk * per_position


def plan_memory(
    config: Qwen3_5TextConfig,
    dtype: torch.dtype,
    *,
    with_mtp: bool,
    free: int,
    batch: int,
    chunk: int,
    width: int = 1,
    max_length: int | None = None,
    memory_gib: float | None = None,
) -> MemoryPlan:
    """Return the memory that sequences may take.

    Args:
        config: the model's shape.
        dtype: of the weights and caches.
        with_mtp: whether sequences also have a cache of the MTP block.
        free: bytes that this process can still take.
        batch: the most sequences that run together.
        chunk: the most prompt positions that are read at once.
        width: tokens a position.
        max_length: the most tokens of prompt and budget together; None for no fixed limit.
        memory_gib: memory besides the weights; None for most of ``free``.

    Raises:
        MachineError: if ``batch`` short sequences, or one of ``max_length``, do not fit; the hint says what would.
    """
    if memory_gib is not None and memory_gib * GIB > free:
        raise MachineError(
            f"engine.memory_gib is {memory_gib:g}, but only {free / GIB:.2f} GiB are free",
            hint="a smaller engine.memory_gib, or null for most of the free memory",
        )
    allowed = int(free * _SHARE if memory_gib is None else memory_gib * GIB)
    cost = sequence_cost(config, dtype, with_mtp=with_mtp)
    plan = MemoryPlan(cost, allowed - reading_bytes(config, dtype, chunk))
    shortest = _SHORTEST if max_length is None else min(_SHORTEST, -(-max_length // width))
    if cost.of(batch + 1, shortest) > plan.budget:  # one of them is being read
        count = plan.budget // cost.of(1, shortest) - 1
        raise MachineError(
            f"a batch of {batch} does not fit {allowed / GIB:.2f} GiB: one sequence of only {shortest} positions takes "
            f"{cost.of(1, shortest) / 2**20:.1f} MiB, and reading prompts {(allowed - plan.budget) / 2**20:.1f} MiB",
            hint=f"engine.batch={count}" if count >= 1 else "a smaller engine.prefill_chunk, or more memory",
        )
    if max_length is not None and max_length > plan.max_positions:
        raise MachineError(
            f"sequences of engine.max_length = {max_length} tokens do not fit {allowed / GIB:.2f} GiB",
            hint=f"engine.max_length={plan.max_positions}",
        )
    return plan
