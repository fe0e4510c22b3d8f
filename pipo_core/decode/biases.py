"""What requests add to scores before sampling: biases of single tokens, and ends that must not come yet."""

from collections.abc import Sequence

import torch


class Biases:
    """Biases of the running sequences.

    They are tables over the vocabulary, made only while a sequence asks for one: 4 bytes an entry for ``logit_bias``,
    1 for ``min_tokens``.

    Args:
        logit_bias: of each sequence, tokens and what is added to their scores.
        min_tokens: of each sequence, tokens that it must have before one of ``ends`` may come.
        ends: ids that end each sequence; empty for none anywhere.
        vocabulary: how many ids there are.
        device: where the sequences run.
    """

    def __init__(
        self,
        logit_bias: Sequence[Sequence[tuple[int, float]]],
        min_tokens: Sequence[int],
        ends: Sequence[frozenset[int]],
        vocabulary: int,
        device: torch.device,
    ) -> None:
        self._pairs = list(logit_bias)
        self._least = list(min_tokens)
        self._ends = list(ends) or [frozenset()] * len(min_tokens)
        self._vocabulary = vocabulary
        self._device = device
        self._written = torch.zeros(len(min_tokens), dtype=torch.long, device=device)
        self._collect()

    def add_to(
        self, scores: torch.Tensor, indices: torch.Tensor | None, vocabulary: torch.Tensor | None
    ) -> torch.Tensor:
        """Return scores ``[N, V]`` with the biases of the sequences ``indices``; None for all.

        Args:
            scores: of the next tokens.
            indices: of the sequences, ``[N]``.
            vocabulary: the ids that the scores are of, ``[V]``; None for all.
        """
        chosen = slice(None) if indices is None else indices
        ids = slice(None) if vocabulary is None else vocabulary
        if self._added is not None:
            scores = scores + self._added[chosen][:, ids]
        if self._end_table is not None:
            early = (self._written < self._end_from)[chosen]
            scores = scores.masked_fill(self._end_table[chosen][:, ids] & early[:, None], -torch.inf)
        return scores

    def count(self, wrote: torch.Tensor | None) -> None:
        """Count a token of the sequences that wrote one, ``[B]``; None: of all."""
        if self._end_table is None:  # nobody asks, and a step has few operations to spare
            return
        self._written += 1 if wrote is None else wrote.long()

    def join(self, other: "Biases") -> None:
        """Append the sequences of ``other``."""
        self._pairs += other._pairs
        self._least += other._least
        self._ends += other._ends
        self._written = torch.cat([self._written, other._written])
        self._collect()

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others."""
        self._pairs = [self._pairs[index] for index in indices]
        self._least = [self._least[index] for index in indices]
        self._ends = [self._ends[index] for index in indices]
        self._written = self._written[list(indices)]
        self._collect()

    def _collect(self) -> None:
        """Make the tables anew; called when sequences change, not every step."""
        shape = (len(self._pairs), self._vocabulary)
        self._added: torch.Tensor | None = None
        self._end_table: torch.Tensor | None = None
        if any(self._pairs):
            self._added = torch.zeros(shape, device=self._device)
            for row, pairs in enumerate(self._pairs):
                tokens, values = [token for token, _ in pairs], [value for _, value in pairs]
                self._added[row, tokens] = torch.tensor(values, device=self._device)
        if any(self._least):
            self._end_table = torch.zeros(shape, dtype=torch.bool, device=self._device)
            for row, ends in enumerate(self._ends):
                self._end_table[row, sorted(ends)] = True
            self._end_from = torch.tensor(self._least, device=self._device)
