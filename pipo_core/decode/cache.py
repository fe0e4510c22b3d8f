"""Row caches: what the layers remember of the running rows, in buffers that rows join and leave.

The buffers are inference tensors: steps and changes of rows run under ``torch.inference_mode``.
The running rows are always the first ``count`` rows of each buffer. A row that leaves is overwritten by the last one,
so retiring costs one row's copy and nothing is allocated. Buffers are as large as the rows need: they grow when more or
longer rows come. `RowCache` is what the stock Qwen3.5 layers see as their
``past_key_values`` while decoding; prefill runs on a stock ``DynamicCache`` and is copied in.
"""

import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers.cache_utils import DynamicCache
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig


class _AttentionRows:
    """Keys and values of one full-attention layer, ``[rows, heads, capacity, D]``."""

    def __init__(self, cache: "RowCache", heads: int, head_dim: int) -> None:
        shape = (cache.max_rows, heads, cache.capacity, head_dim)
        self._cache = cache
        self.buffers = [torch.zeros(shape, dtype=cache.dtype, device=cache.device) for _ in range(2)]

    def update(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one new position a row, ``[B, heads, 1, D]``, and return all that the rows may see."""
        cache = self._cache
        rows = cache.row_numbers
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[rows, :, cache.lengths] = new[:, :, 0]
        seen = cache.longest + 1
        return self.buffers[0][: cache.count, :, :seen], self.buffers[1][: cache.count, :, :seen]


class _LinearRows:
    """Convolution and recurrent states of one gated-delta layer; the attributes are those that the layer reads."""

    record_past = False

    def __init__(self, cache: "RowCache", config: Qwen3_5TextConfig) -> None:
        key_width = config.linear_key_head_dim * config.linear_num_key_heads
        value_width = config.linear_value_head_dim * config.linear_num_value_heads
        conv_shape = (cache.max_rows, 2 * key_width + value_width, config.linear_conv_kernel_dim)
        recurrent_shape = (
            cache.max_rows,
            config.linear_num_value_heads,
            config.linear_key_head_dim,
            config.linear_value_head_dim,
        )
        self._cache = cache
        self.buffers = [
            torch.zeros(conv_shape, dtype=cache.dtype, device=cache.device),
            torch.zeros(recurrent_shape, dtype=torch.float32, device=cache.device),
        ]

    @property
    def conv_states(self) -> list[torch.Tensor]:
        """The running rows' last inputs of the convolution; the layer updates them in place."""
        return [self.buffers[0][: self._cache.count]]

    @property
    def recurrent_states(self) -> list[torch.Tensor]:
        """The running rows' recurrent states."""
        return [self.buffers[1][: self._cache.count]]


class RowCache:
    """The cache of a stack of layers for the running rows.

    Attributes:
        count: running rows.
        lengths: positions stored, ``[count]``.
        longest: the largest of ``lengths``, known without asking the device.
    """

    def __init__(
        self,
        config: Qwen3_5TextConfig,
        *,
        max_rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        most: Sequence[int] = (),
    ) -> None:
        self.config = config
        self.max_rows = max_rows
        self.capacity = capacity
        self.dtype = dtype
        self.device = device
        self.count = 0
        self._lengths: list[int] = []
        self._most = list(most) or [sys.maxsize] * max_rows  # positions that each row can reach
        self.layers: list[_AttentionRows | _LinearRows] = [
            _AttentionRows(self, config.num_key_value_heads, config.head_dim)
            if kind == "full_attention"
            else _LinearRows(self, config)
            for kind in config.layer_types[: config.num_hidden_layers]
        ]
        self._refresh()

    # ------------------------------------------------------------ what the layers call

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Store and return keys and values of an attention layer."""
        return cast(_AttentionRows, self.layers[layer_idx]).update(keys, values)

    def update_recurrent_state(self, state: torch.Tensor, layer_idx: int) -> None:
        """Store a gated-delta layer's new recurrent state, ``[B, heads, Dk, Dv]``."""
        cast(_LinearRows, self.layers[layer_idx]).recurrent_states[0].copy_(state)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Return True: rows come here after their prefill."""
        return True

    # ------------------------------------------------------------ what a step calls

    @property
    def positions(self) -> torch.Tensor:
        """Position of the slot that is being computed, ``[B, 1]``."""
        return self.lengths[:, None]

    def mask(self) -> torch.Tensor:
        """Return ``[B, 1, 1, K]``, True where a row may look: its own past and the slot being computed."""
        seen = torch.arange(self.longest + 1, device=self.device)
        return (seen <= self.lengths[:, None])[:, None, None]

    def advance(self) -> None:
        """The slot being computed is now part of every row's past."""
        self._lengths = [length + 1 for length in self._lengths]
        self.lengths += 1
        self.longest += 1

    # ------------------------------------------------------------ rows come and go

    def load(self, states: Sequence[Sequence[torch.Tensor]], lengths: Sequence[int]) -> None:
        """Fill an empty cache with rows whose positions start at index 0; one sequence of tensors a layer."""
        self.count = len(lengths)
        self._lengths = list(lengths)
        for layer, tensors in zip(self.layers, states, strict=True):
            for buffer, tensor in zip(layer.buffers, tensors, strict=True):
                _part(buffer, slice(0, self.count), tensor).copy_(tensor)
        self._refresh()

    @torch.inference_mode()
    def join(self, other: "RowCache") -> None:
        """Append the rows of ``other``, which gives them up, making room for more or longer ones if needed."""
        needed_rows, needed_slots = self.count + other.count, other.longest + 1
        if needed_rows > self.max_rows or needed_slots > self.capacity:
            most = max([needed_slots, *self._most[: self.count], *other._most])
            self._move(needed_rows, min(_doubled(self.capacity, needed_slots), most))
        rows = slice(self.count, self.count + other.count)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            for buffer, source in zip(mine.buffers, theirs.buffers, strict=True):
                block = source[: other.count]
                if isinstance(mine, _AttentionRows):
                    block = block[:, :, : other.longest]
                _part(buffer, rows, block).copy_(block)
        self._most = self._most[: self.count] + other._most
        self.count += other.count
        self._lengths += other._lengths
        self._refresh()
        other.keep([])

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others; only rows that move are copied.

        Where half of the rows are gone, so are their buffers. Without rows nothing is held: cache and layers know each
        other, so Python would free them only when it looks for cycles.
        """
        moves = [(target, source) for target, source in enumerate(rows) if target != source]
        if moves:
            targets = torch.tensor([target for target, _ in moves], device=self.device)
            sources = torch.tensor([source for _, source in moves], device=self.device)
            for layer in self.layers:
                for buffer in layer.buffers:
                    buffer[targets] = buffer[sources]
        self.count = len(rows)
        self._lengths = [self._lengths[row] for row in rows]
        self._most = [self._most[row] for row in rows]
        self._refresh()
        if 2 * self.count <= self.max_rows:
            self._move(self.count, min(self.capacity, max([self.longest + 1, *self._most])))

    def reserve(self) -> None:
        """Make sure that every row has room for one more slot."""
        if self.longest >= self.capacity:
            needed = self.longest + 1
            self._move(self.count, min(_doubled(self.capacity, needed), max(needed, *self._most)))

    def _move(self, max_rows: int, capacity: int) -> None:
        """Move to larger or smaller buffers, one at a time, so that only one is there twice."""
        self.max_rows, self.capacity = max_rows, capacity
        for layer in self.layers:
            for index, old in enumerate(layer.buffers):
                shape = [max_rows, *old.shape[1:]]
                if isinstance(layer, _AttentionRows):
                    shape[2] = capacity
                new = old.new_zeros(shape)
                part = old[: self.count, :, :capacity] if isinstance(layer, _AttentionRows) else old[: self.count]
                _part(new, slice(0, self.count), part).copy_(part)
                layer.buffers[index] = new

    def _refresh(self) -> None:
        self.lengths = torch.tensor(self._lengths, dtype=torch.long, device=self.device)
        self.row_numbers = torch.arange(self.count, device=self.device)
        self.longest = max(self._lengths, default=0)


def decode_inputs(cache: RowCache) -> dict[str, Any]:
    """Return the keyword arguments with which the stock text model runs one new slot a row on ``cache``."""
    return {
        "position_ids": cache.positions,
        "attention_mask": {"full_attention": cache.mask(), "linear_attention": None},
        "past_key_values": cache,
        "use_cache": True,
    }


def prefill_states(prefilled: DynamicCache, fills: torch.Tensor, *, padded: bool = True) -> list[list[torch.Tensor]]:
    """Return the states of a left-padded prefill, one list a layer, with every row's first position at index 0.

    Args:
        prefilled: the stock cache after the prompt.
        fills: how many positions each row was padded by, ``[B]``.
        padded: False where no row was, which spares a copy.
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
    """Return ``[B, heads, S, D]`` with row ``b`` moved left by ``fills[b]``; what comes in on the right is junk."""
    width = states.shape[2]
    index = (torch.arange(width, device=states.device) + fills[:, None]).clamp(max=max(width - 1, 0))
    return states.gather(2, index[:, None, :, None].expand_as(states))


def _doubled(capacity: int, needed: int) -> int:
    """Return a capacity of at least ``needed``, doubling so that growing stays rare."""
    return capacity if needed <= capacity else max(2 * capacity, needed)


def _part(buffer: torch.Tensor, rows: slice, like: torch.Tensor) -> torch.Tensor:
    """Return the corner of ``buffer`` at ``rows`` with the shape of ``like``."""
    return buffer[(rows, *(slice(0, size) for size in like.shape[1:]))]
