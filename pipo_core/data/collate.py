"""Batches: rows of different lengths in one right-padded tensor.

Every layer is causal and padding has no label, so no attention mask is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipo_core.data.augment import IGNORED, PairedRow


class Batch(NamedTuple):
    """A right-padded batch.

    Attributes:
        input_ids: ``[B, T]``, int64.
        labels: ``[B, T]``, int64, -100 where there is no loss and on all padding.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor


def collate_regular(rows: Sequence[tuple[ArrayLike, ArrayLike]], *, pad_id: int) -> Batch:
    """Return rows ``(ids, labels)`` as a batch of the uncompressed model; T is the longest row."""
    return _pad_right([(np.asarray(ids), np.asarray(labels)) for ids, labels in rows], pad_id)


def collate_pairs(rows: Sequence[PairedRow], *, pad_id: int) -> Batch:
    """Return rows laid out in slots as a batch of the pair model; T is even.

    Raises:
        ValueError: if a row has an odd number of places.
    """
    for row in rows:
        if row.input_ids.size % 2:
            raise ValueError(f"a row of a pair batch must have an even length, got {row.input_ids.size}")
    return _pad_right([(row.input_ids, row.labels) for row in rows], pad_id)


def _pad_right(rows: Sequence[tuple[np.ndarray, np.ndarray]], pad_id: int) -> Batch:
    if not rows:
        raise ValueError("a batch needs at least one row")
    shape = (len(rows), max(ids.size for ids, _ in rows))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    padded_labels = np.full(shape, IGNORED, dtype=np.int64)
    for index, (ids, labels) in enumerate(rows):
        input_ids[index, : ids.size] = ids
        padded_labels[index, : labels.size] = labels
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(padded_labels))
