"""The token ids that end each running sequence."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

_NO_TOKEN = -1


class EndIds:
    """One set of ids a sequence, as a table that a device can look into.

    Args:
        sets: one a sequence; empty for no ends at all.
        count: how many sequences there are.
        device: where they run.
    """

    def __init__(self, sets: Sequence[frozenset[int]], count: int, device: torch.device) -> None:
        ids = [sorted(one) for one in sets] if sets else [[] for _ in range(count)]
        width = max((len(one) for one in ids), default=0)
        filled = [one + [_NO_TOKEN] * (width - len(one)) for one in ids]
        self._table = torch.tensor(filled, dtype=torch.long, device=device).reshape(count, width)

    def contain(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return whether each sequence's token, ``[B]``, ends it, ``[B]``."""
        return (tokens[:, None] == self._table).any(dim=1)

    def join(self, other: "EndIds") -> None:
        """Append the sets of ``other``."""
        width = max(self._table.shape[1], other._table.shape[1])
        tables = (F.pad(table, (0, width - table.shape[1]), value=_NO_TOKEN) for table in (self._table, other._table))
        self._table = torch.cat(list(tables))

    def keep(self, indices: Sequence[int]) -> None:
        """Make set ``i`` what set ``indices[i]`` was and forget the others."""
        self._table = self._table[list(indices)]
