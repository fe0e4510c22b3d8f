"""Sequence caches: the layers' states of the running sequences, in buffers that sequences join and leave.

The running sequences are the first ``count`` entries of each buffer. When one leaves, the last one moves into its
entry, so retiring costs the copy of one sequence and no allocation. Buffers grow when more or longer sequences join.
They are inference tensors: steps and changes of sequences run under ``torch.inference_mode``.

The stock Qwen3.5 layers see a `SequenceCache` as their cache while decoding. Prefill runs on a stock
``DynamicCache``, whose states are copied in.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import cast

import torch
from transformers.cache_utils import DynamicCache
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.recurrence import Inputs, advance

FEW_SEQUENCES = 8
"""Up to this many sequences a GPU's steps cost more to launch than to compute, so keeping shapes and addresses pays."""

_SERIALS = itertools.count()


class AttentionStates:
    """Keys and values of one full-attention layer, ``[sequences, heads, capacity, D]``."""

    def __init__(self, cache: "SequenceCache", heads: int, head_dim: int) -> None:
        shape = (cache.max_sequences, heads, cache.capacity, head_dim)
        self._cache = cache
        self.buffers = [torch.zeros(shape, dtype=cache.dtype, device=cache.device) for _ in range(2)]

    def update(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``W`` new positions a sequence, ``[B, heads, W, D]``, and return all that the sequences may see."""
        cache = self._cache
        width = keys.shape[2]
        indices, places = cache.indices[:, None], cache.positions(width)
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[indices, :, places] = new.transpose(1, 2)
        seen = cache.seen(width)
        return self.buffers[0][: cache.count, :, :seen], self.buffers[1][: cache.count, :, :seen]


class GatedDeltaStates:
    """Convolution and recurrent states of one gated-delta layer."""

    def __init__(self, cache: "SequenceCache", config: Qwen3_5TextConfig) -> None:
        key_width = config.linear_key_head_dim * config.linear_num_key_heads
        value_width = config.linear_value_head_dim * config.linear_num_value_heads
        conv_shape = (cache.max_sequences, 2 * key_width + value_width, config.linear_conv_kernel_dim)
        recurrent_shape = (
            cache.max_sequences,
            config.linear_num_value_heads,
            config.linear_key_head_dim,
            config.linear_value_head_dim,
        )
        self._cache = cache
        self.buffers = [
            torch.zeros(conv_shape, dtype=cache.dtype, device=cache.device),
            torch.zeros(recurrent_shape, dtype=torch.float32, device=cache.device),
        ]

    record_past = False
    """What `SequenceCache.is_recording_past` says, where transformers before 5.21 looks for it."""

    @property
    def conv_states(self) -> list[torch.Tensor]:
        """What the stock layer's own kernels read and update in place, as `recurrent_states`."""
        return [self.conv]

    @property
    def recurrent_states(self) -> list[torch.Tensor]:
        """The stock layer writes these back through `SequenceCache.update_recurrent_state`."""
        return [self.recurrent]

    @property
    def conv(self) -> torch.Tensor:
        """The running sequences' last inputs of the convolution, ``[B, C, K]``."""
        return self.buffers[0][: self._cache.count]

    @property
    def recurrent(self) -> torch.Tensor:
        """The running sequences' recurrent states, ``[B, heads, Dk, Dv]``."""
        return self.buffers[1][: self._cache.count]

    def append_inputs(self, inputs: Inputs) -> None:
        """Accept new inputs of the convolution; the recurrent states hold their positions already."""
        self.conv.copy_(torch.cat([self.conv, inputs.conv], dim=2)[:, :, inputs.conv.shape[2] :])

    def commit(self, inputs: Inputs, counts: torch.Tensor) -> None:
        """Accept the first ``counts[b]`` positions of a speculative pass for sequence ``b``."""
        for place in range(inputs.conv.shape[2]):
            advance(self.recurrent, inputs, place, taken=place < counts)
        both = torch.cat([self.conv, inputs.conv], dim=2)
        places = counts[:, None] + torch.arange(self.conv.shape[2], device=counts.device)
        self.conv.copy_(both.gather(2, places[:, None].expand(-1, both.shape[1], -1)))


class SequenceCache:
    """The cache of a stack of layers for the running sequences.

    Attributes:
        count: running sequences.
        lengths: positions stored, ``[count]``.
        indices: ``0 … count − 1``.
        longest: the largest of ``lengths``, known without synchronising with the device.
        serial: changes only when the layers get other buffers. Between two changes all tensors of ``count`` sequences
            keep their addresses, so a recorded pass (`graphs`) can be replayed.
    """

    def __init__(
        self,
        config: Qwen3_5TextConfig,
        *,
        max_sequences: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        max_positions: Sequence[int] = (),
        block: int = 1,
    ) -> None:
        """Make an empty cache.

        Args:
            config: of the layers.
            max_sequences: sequences that have buffers at once; more are made when sequences join.
            capacity: positions that a sequence has room for at once.
            dtype: of keys, values and inputs of convolutions.
            device: where.
            max_positions: positions that each sequence can reach; without a limit if empty.
            block: buffers hold a whole number of blocks of positions. If a block is larger than one position, the
                layers see all positions, stored or not, so that shapes change once a block and not at every step.
        """
        self.config = config
        self.max_sequences = max_sequences
        self.block = block
        self.capacity = self._whole(capacity)
        self.dtype = dtype
        self.device = device
        self.count = 0
        self._lengths: list[int] = []
        self._max_positions = list(max_positions) or [sys.maxsize] * max_sequences
        self.layers: list[AttentionStates | GatedDeltaStates] = [
            AttentionStates(self, config.num_key_value_heads, config.head_dim)
            if kind == "full_attention"
            else GatedDeltaStates(self, config)
            for kind in config.layer_types[: config.num_hidden_layers]
        ]
        self._renew_index()
        self._refresh()

    # ------------------------------------------------------------ what the layers call
    # Up to transformers 5.20 a gated-delta layer asks `has_previous_state` and reads the states of `layers` itself;
    # since 5.21 it calls `get_conv_state`, `get_recurrent_state` and `is_recording_past`.

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store and return keys and values of an attention layer; further arguments are for other kinds of caches."""
        return cast(AttentionStates, self.layers[layer_idx]).update(keys, values)

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor:
        """Return a gated-delta layer's last inputs of the convolution, ``[B, C, K]``, to read and update in place."""
        return cast(GatedDeltaStates, self.layers[layer_idx]).conv

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor:
        """Return a gated-delta layer's recurrent state, ``[B, heads, Dk, Dv]``."""
        return cast(GatedDeltaStates, self.layers[layer_idx]).recurrent

    def is_recording_past(self, layer_idx: int) -> bool:
        """Return False: no layer keeps earlier states for a rollback; `commit` does without them."""
        return False

    def update_recurrent_state(self, state: torch.Tensor, layer_idx: int) -> None:
        """Store a gated-delta layer's new recurrent state, ``[B, heads, Dk, Dv]``."""
        cast(GatedDeltaStates, self.layers[layer_idx]).recurrent.copy_(state)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Return True: sequences come here after their prefill."""
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' buffers."""
        return sum(buffer.nbytes for layer in self.layers for buffer in layer.buffers)

    # ------------------------------------------------------------ what a step calls

    def positions(self, width: int = 1) -> torch.Tensor:
        """Positions of the next ``width`` inputs of each sequence, ``[B, W]``."""
        return self.lengths[:, None] + torch.arange(width, device=self.device)

    def seen(self, width: int = 1) -> int:
        """Return how many positions the layers are given with ``width`` new ones; a mask tells which are valid."""
        return self.longest + width if self.block == 1 else self.capacity

    def spans(self, width: int = 1) -> list[int]:
        """Return how many positions each sequence's last of ``width`` new ones may see, itself included."""
        return [length + width for length in self._lengths]

    def mask(self, width: int = 1) -> torch.Tensor:
        """Return ``[B, 1, W, K]``, True where a new position may look: its sequence's past and itself."""
        seen = torch.arange(self.seen(width), device=self.device)
        return (seen <= self.positions(width)[:, :, None])[:, None]

    def advance(self, count: int = 1) -> None:
        """Accept the next ``count`` positions, which the layers hold, for every sequence."""
        self._lengths = [length + count for length in self._lengths]
        self.lengths += count
        self.longest += count

    def commit(self, counts: Sequence[int], pending: Sequence[Inputs] = ()) -> None:
        """Accept the first ``counts[b]`` positions of the last speculative pass for sequence ``b``, discard the rest.

        Args:
            counts: below zero to forget some of the last positions, which only attention layers can.
            pending: what that pass returned, one entry a gated-delta layer.
        """
        self._lengths = [length + count for length, count in zip(self._lengths, counts, strict=True)]
        linear = [layer for layer in self.layers if isinstance(layer, GatedDeltaStates)]
        if linear:
            on_device = torch.tensor(counts, dtype=torch.long, device=self.device)
            for layer, inputs in zip(linear, pending, strict=True):
                layer.commit(inputs, on_device)
        self._refresh()

    # ------------------------------------------------------------ sequences come and go

    def load(
        self, states: Sequence[Sequence[torch.Tensor]], lengths: Sequence[int], rows: Sequence[int] | None = None
    ) -> None:
        """Fill an empty cache with sequences whose positions start at index 0.

        Args:
            states: a sequence of tensors a layer.
            lengths: positions of each sequence.
            rows: which row of the tensors each sequence takes; None for its own.
        """
        self.count = len(lengths)
        self._lengths = list(lengths)
        for layer, tensors in zip(self.layers, states, strict=True):
            for buffer, tensor in zip(layer.buffers, tensors, strict=True):
                taken = tensor if rows is None else tensor[list(rows)]
                _part(buffer, slice(0, self.count), taken).copy_(taken)
        self._refresh()

    @torch.inference_mode()
    def join(self, other: "SequenceCache") -> None:
        """Append the sequences of ``other``, which must not be used afterwards; buffers grow if needed."""
        needed, positions = self.count + other.count, other.longest + 1
        # An empty cache may have the buffers of longer sequences, and a step reads all positions of the buffers.
        if not self.count and self.capacity > 2 * other.capacity:
            self._move(needed, other.capacity)
        elif needed > self.max_sequences or positions > self.capacity:
            limit = max([positions, *self._max_positions[: self.count], *other._max_positions])
            self._move(needed, min(self._grown(positions), limit))
        places = slice(self.count, self.count + other.count)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for buffer, source in zip(mine.buffers, theirs.buffers, strict=True):
                block = source[: other.count]
                if isinstance(mine, AttentionStates):
                    block = block[:, :, : other.longest]
                _part(buffer, places, block).copy_(block)
        self._max_positions = self._max_positions[: self.count] + other._max_positions
        self.count += other.count
        self._lengths += other._lengths
        self._refresh()
        other.keep([])

    @torch.inference_mode()
    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others; only those that move are copied.

        When at most half of the sequences remain, the buffers shrink to fit. Block buffers are kept for reuse. Buffers
        of no sequences are freed here, because cache and layers refer to each other and Python would free them late.
        """
        moves = [(target, source) for target, source in enumerate(indices) if target != source]
        if moves:
            targets = torch.tensor([target for target, _ in moves], device=self.device)
            sources = torch.tensor([source for _, source in moves], device=self.device)
            for layer in self.layers:
                for buffer in layer.buffers:
                    buffer[targets] = buffer[sources]
        self.count = len(indices)
        self._lengths = [self._lengths[index] for index in indices]
        self._max_positions = [self._max_positions[index] for index in indices]
        self._refresh()
        if 2 * self.count <= self.max_sequences and (self.block == 1 or self.max_sequences > FEW_SEQUENCES):
            self._move(self.count, min(self.capacity, max([self.longest + 1, *self._max_positions])))

    def reserve(self, width: int = 1) -> None:
        """Make sure that every sequence has room for ``width`` more positions."""
        needed = self.longest + width
        if needed > self.capacity:
            self._move(self.count, min(self._grown(needed), max(needed, *self._max_positions)))

    def _move(self, max_sequences: int, capacity: int) -> None:
        """Replace the buffers by larger or smaller ones, one at a time, so that only one exists twice."""
        capacity = self._whole(capacity)
        self.max_sequences, self.capacity = max_sequences, capacity
        self._renew_index()
        for layer in self.layers:
            for index, old in enumerate(layer.buffers):
                shape = [max_sequences, *old.shape[1:]]
                if isinstance(layer, AttentionStates):
                    shape[2] = capacity
                new = old.new_zeros(shape)
                part = old[: self.count, :, :capacity] if isinstance(layer, AttentionStates) else old[: self.count]
                _part(new, slice(0, self.count), part).copy_(part)
                layer.buffers[index] = new
        self._refresh()

    def _whole(self, positions: int) -> int:
        """Return the positions of the blocks that hold so many."""
        return -(-positions // self.block) * self.block

    def _grown(self, needed: int) -> int:
        """Return a capacity of at least ``needed``: doubled, so that growing stays rare; in blocks, one by one."""
        return max(self.capacity if needed <= self.capacity or self.block > 1 else 2 * self.capacity, needed)

    def _renew_index(self) -> None:
        """Change `serial` after buffers were replaced, and make new ones for `lengths` and `indices`."""
        self.serial = next(_SERIALS)
        self._length_buffer = torch.zeros(self.max_sequences, dtype=torch.long, device=self.device)
        self._index_buffer = torch.arange(self.max_sequences, device=self.device)

    def _refresh(self) -> None:
        self.lengths = self._length_buffer[: self.count]
        self.lengths.copy_(torch.tensor(self._lengths, dtype=torch.long))
        self.indices = self._index_buffer[: self.count]
        self.longest = max(self._lengths, default=0)


def prefill_states(prefilled: DynamicCache, fills: torch.Tensor, *, padded: bool = True) -> list[list[torch.Tensor]]:
    """Return the states of a left-padded prefill, one list a layer, with every sequence's first position at index 0.

    Args:
        prefilled: the stock cache after the prompt.
        fills: how many positions each sequence was padded by, ``[B]``.
        padded: False where no sequence was, which spares a copy.
    """
    states = []
    for layer in prefilled.layers:
        if hasattr(layer, "recurrent_states"):
            states.append([layer.conv_states[0], layer.recurrent_states[0]])
        elif padded:
            states.append([shift_left(layer.keys, fills), shift_left(layer.values, fills)])
        else:
            states.append([layer.keys, layer.values])
    return states


def shift_left(states: torch.Tensor, fills: torch.Tensor) -> torch.Tensor:
    """Return ``[B, heads, S, D]`` with sequence ``b`` moved left by ``fills[b]``; the right end then holds junk."""
    width = states.shape[2]
    index = (torch.arange(width, device=states.device) + fills[:, None]).clamp(max=max(width - 1, 0))
    return states.gather(2, index[:, None, :, None].expand_as(states))


def _part(buffer: torch.Tensor, places: slice, like: torch.Tensor) -> torch.Tensor:
    """Return the corner of ``buffer`` at ``places`` with the shape of ``like``."""
    return buffer[(places, *(slice(0, size) for size in like.shape[1:]))]
