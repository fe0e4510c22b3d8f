"""Slots: the grid of token pairs on which a pair model reads and writes.

Slot ``i`` holds the tokens ``(t_{2i}, t_{2i+1})``; a sequence of ``T`` tokens has ``S = T / 2`` slots.
A PAD may stand only in the second place of a slot. Its id is also the tokenizer's end-of-text token, which may be
real text, so pads are always carried as a mask beside the ids and never recognised by their id.
"""

from collections.abc import Sequence

import torch


def pair_up(sequence: torch.Tensor) -> torch.Tensor:
    """Return ``[B, T, ...]`` as slots, ``[B, S, 2, ...]``.

    Raises:
        ValueError: if ``T`` is odd; a prompt is made even with `even_prompt` first.
    """
    if sequence.shape[1] % 2:
        raise ValueError(f"a pair model reads an even number of tokens, got {sequence.shape[1]}")
    batch, tokens, *rest = sequence.shape
    return sequence.reshape(batch, tokens // 2, 2, *rest)


def even_prompt(ids: Sequence[int], pad_id: int) -> list[int]:
    """Return the prompt with one PAD at its end if its length is odd, so that the answer starts on a slot boundary."""
    return [*ids, pad_id] if len(ids) % 2 else list(ids)


def left_pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sequences padded on the left, ``ids [B, T]``, and the length of each one's padding, ``[B]``.

    Args:
        rows: token ids.
        fill: the id of the padding; the caller masks the padding by its length.
        device: where the tensors go.
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
    fills = torch.tensor([width - len(row) for row in rows])
    return ids.to(device), fills.to(device)
