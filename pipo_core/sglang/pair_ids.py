"""A slot as one integer: the token of a pair model inside SGLang."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_NO_NEXT = 0
"""Stands for the next first token in a radix key where it is not known; known ones count from 1."""


@dataclass(frozen=True)
class PairIds:
    """The ids of slots over a vocabulary of V tokens.

    ``id = first`` if the slot holds one token, else ``id = first + V·(second + 1)``. So an id below V is a plain token,
    ``id % V`` is always the first one, and a PAD that was sampled is not taken for the one that fills a slot. int64
    holds ids up to V ≈ 3·10⁹, and radix keys up to V ≈ 2·10⁶.

    Attributes:
        vocabulary: V, the number of token ids.
    """

    vocabulary: int

    def pack(self, tokens: Sequence[int]) -> "array[int]":
        """Return the slots of a prompt; after an odd number of tokens the last slot holds one."""
        ids = np.asarray(tokens, dtype=np.int64)
        slots = ids[0::2].copy()
        slots[: len(ids) // 2] += self.vocabulary * (ids[1::2] + 1)
        return array("q", slots.tobytes())

    def unpack(self, slots: Iterable[int]) -> "array[int]":
        """Return the tokens of slots."""
        tokens = array("q")
        for slot in slots:
            tokens.append(slot % self.vocabulary)
            if slot >= self.vocabulary:
                tokens.append(slot // self.vocabulary - 1)
        return tokens

    def count(self, slot: int) -> int:
        """Return how many tokens a slot holds."""
        return 1 + (slot >= self.vocabulary)

    def radix_keys(self, slots: Sequence[int]) -> "array[int]":
        """Return the prefix cache's keys of slots.

        What is cached for a slot depends on the slot and, in the MTP layer, on the first token of the next one. Both
        are in its key: ``id·(V + 1) + next first token + 1``.
        """
        ids = np.asarray(slots, dtype=np.int64)
        following = np.full_like(ids, _NO_NEXT)
        following[:-1] = ids[1:] % self.vocabulary + 1
        return array("q", (ids * (self.vocabulary + 1) + following).tobytes())

    def split(self, slots: torch.Tensor, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both tokens of slots ``[N]``, a PAD as the second one where there is none."""
        first, second = slots % self.vocabulary, slots // self.vocabulary - 1
        return first, torch.where(second < 0, pad_id, second)

    def join(self, first: torch.Tensor, second: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return slots ``[N]`` of first tokens, and of second ones where they are ``kept``, ``[N]`` each."""
        return torch.where(kept, first + self.vocabulary * (second + 1), first)
