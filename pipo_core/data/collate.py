"""Batches: examples of different lengths in one right-padded tensor.

No attention mask is needed, because every layer is causal and padding has no label.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipo_core.data.augment import IGNORED, PairedExample


class PaddedBatch(NamedTuple):
    """Examples, padded at their right ends to one length.

    Attributes:
        input_ids: ``[B, T]``, int64.
        labels: ``[B, T]``, int64, -100 where there is no loss and on all padding.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor


def collate_regular(examples: Sequence[tuple[ArrayLike, ArrayLike]], *, pad_id: int) -> PaddedBatch:
    """Return examples ``(ids, labels)`` as a batch of the uncompressed model; T is the longest length.

    Raises:
        ValueError: if there is no example.
    """
    return _pad_right([(np.asarray(ids), np.asarray(labels)) for ids, labels in examples], pad_id)


def collate_pairs(examples: Sequence[PairedExample], *, pad_id: int) -> PaddedBatch:
    """Return examples that are laid out in slots as a batch of the pair model; T is even.

    Raises:
        ValueError: if there is no example, or one has an odd length.
    """
    for example in examples:
        if example.input_ids.size % 2:
            raise ValueError(f"an example of a pair batch must have an even length, got {example.input_ids.size}")
    return _pad_right([(example.input_ids, example.labels) for example in examples], pad_id)


def _pad_right(examples: Sequence[tuple[np.ndarray, np.ndarray]], pad_id: int) -> PaddedBatch:
    if not examples:
        raise ValueError("a batch needs at least one example")
    shape = (len(examples), max(ids.size for ids, _ in examples))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    padded_labels = np.full(shape, IGNORED, dtype=np.int64)
    for index, (ids, labels) in enumerate(examples):
        input_ids[index, : ids.size] = ids
        padded_labels[index, : labels.size] = labels
    return PaddedBatch(torch.from_numpy(input_ids), torch.from_numpy(padded_labels))
