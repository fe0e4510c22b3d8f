"""Attention of each sequence's new positions over what its cache holds.

Reading keys and values is what a step of many users or long contexts is made of, so none is read in vain:

- query heads that share a key head are read as queries of one head, without copies of the keys;
- where sequences have different lengths, each reads its own positions and not those of the longest, on a CPU and if it
  is long enough to be worth a call of its own (on a GPU nothing of this has been measured);
- in recorded steps, whose shapes may not change, all positions of the buffers are read, in blocks.
"""

import torch
from torch.nn import functional as F

from pipo_core.decode.cache import SequenceCache

_WORTH_A_CALL = 1 << 18
"""Bytes of keys from which on a sequence is read alone: below, a call on a CPU costs more than reading in vain."""


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cache: SequenceCache,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Return what the queries of ``W`` new positions a sequence read, ``[B, W, heads, D]``.

    Args:
        queries: ``[B, W, heads, D]``.
        keys: all that the sequences may see, ``[B, kv heads, K, D]``, as are values.
        values: what is read.
        cache: of the sequences; it knows how long each one is.
        mask: True where a position may look, ``[B, 1, W, K]``; None if all may look everywhere (`needs_mask`).
        scale: of the scores.
    """
    width, groups = queries.shape[1], queries.shape[2] // keys.shape[1]
    rows = queries.unflatten(2, (-1, groups)).transpose(1, 2).flatten(2, 3)  # [B, kv heads, W · groups, D]
    if mask is None:
        read = F.scaled_dot_product_attention(rows, keys, values, scale=scale)
    else:
        mask = mask.repeat_interleave(groups, dim=2) if width > 1 else mask
        if cache.block > 1:
            read = attend_in_blocks(rows, keys, values, mask, scale, cache.block)
        elif not keys.is_cuda and keys[0].nbytes >= _WORTH_A_CALL:
            read = _attend_alone(rows, keys, values, cache.spans(width), mask if width > 1 else None, scale)
        else:
            read = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
    by_width: torch.Tensor = read.unflatten(2, (width, groups)).transpose(1, 2)
    return by_width.flatten(2, 3)


def needs_mask(cache: SequenceCache, width: int) -> bool:
    """Return whether some of ``width`` new positions may not see all that the layers are given."""
    return width > 1 or cache.block > 1 or len(set(cache.spans(width))) > 1


def attend_in_blocks(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float, block: int
) -> torch.Tensor:
    """Return what queries ``[B, heads, Q, D]`` read of ``K`` positions, a whole number of blocks.

    Few queries over many positions leave a GPU idle if one worker sums a head's values; in blocks of positions whose
    sums are added, as in flash-decoding, all of it works. Plain products also take a mask, with which PyTorch's
    fused attention does not split positions.

    Args:
        q: queries.
        keys: ``[B, heads, K, D]``, as are values.
        values: what is read.
        mask: True where a query may look, ``[B, 1, Q or 1, K]``.
        scale: of the scores.
        block: positions of a block.
    """
    scores = torch.matmul(q, keys.transpose(2, 3)).float() * scale
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).to(values.dtype)
    by_block = weights.unflatten(3, (-1, block)).transpose(2, 3)  # [B, heads, blocks, Q, block]
    sums = torch.matmul(by_block, values.unflatten(2, (-1, block)))
    return sums.sum(dim=2, dtype=torch.float32).to(q.dtype)


def _attend_alone(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    spans: list[int],
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Return what rows ``[B, heads, R, D]`` read, each sequence of its own ``spans[b]`` positions."""
    read = torch.empty_like(rows)
    for index, span in enumerate(spans):
        one = slice(index, index + 1)
        seen = None if mask is None else mask[one, :, :, :span]
        read[one] = F.scaled_dot_product_attention(
            rows[one], keys[one, :, :span], values[one, :, :span], attn_mask=seen, scale=scale
        )
    return read
