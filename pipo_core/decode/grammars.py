"""Grammars of running sequences: which tokens may come next."""

from collections.abc import Sequence
from typing import Protocol

import torch


class Matcher(Protocol):
    """One sequence's place in its grammar."""

    @property
    def active(self) -> bool:
        """Whether the next token is bound by the grammar: not before it begins, nor behind its end."""
        ...

    def allowed(self) -> torch.Tensor:
        """Return which ids may come next, a bool for each id from 0 on; ids beyond may not."""
        ...

    def accept(self, token: int) -> None:
        """Go on behind a token that was written."""
        ...


class Grammar(Protocol):
    """A grammar that any number of sequences can follow."""

    def start(self) -> Matcher:
        """Return the place of a sequence that has written nothing."""
        ...


class Grammars:
    """The grammars of the running sequences; most have none.

    Args:
        grammars: of each sequence.
        device: where the sequences run.
    """

    def __init__(self, grammars: Sequence[Grammar | None], device: torch.device) -> None:
        self._matchers = [None if grammar is None else grammar.start() for grammar in grammars]
        self._device = device

    @property
    def bound(self) -> torch.Tensor | None:
        """Which sequences are bound now, ``[B]``; None if none is."""
        bound = [matcher is not None and matcher.active for matcher in self._matchers]
        return torch.tensor(bound, device=self._device) if any(bound) else None

    def mask(self, scores: torch.Tensor, indices: torch.Tensor | None, vocabulary: torch.Tensor | None) -> torch.Tensor:
        """Return scores ``[N, V]`` in which tokens that may not come are −∞.

        Args:
            scores: of the next tokens.
            indices: of the sequences that they are of, ``[N]``; None for all.
            vocabulary: the ids that they are of, ``[V]``; None for all.
        """
        if not any(self._matchers):
            return scores
        numbers = range(len(self._matchers)) if indices is None else indices.tolist()
        scores = scores.clone()  # they may be the model's own buffer
        for row, number in enumerate(numbers):
            matcher = self._matchers[number]
            if matcher is None or not matcher.active:
                continue
            may = matcher.allowed().to(self._device)
            if vocabulary is not None:
                may = may[vocabulary.clamp(max=len(may) - 1)] & (vocabulary < len(may))
            beyond = scores.shape[1] - len(may)
            may = torch.nn.functional.pad(may, (0, beyond)) if beyond > 0 else may[: scores.shape[1]]
            scores[row] = scores[row].masked_fill(~may, -torch.inf)
        return scores

    def count(self, tokens: torch.Tensor, wrote: torch.Tensor | None) -> None:
        """Go on behind output tokens ``[B]`` of the sequences that wrote one, ``[B]``; None: of all."""
        if not any(self._matchers):
            return
        written = [True] * len(self._matchers) if wrote is None else wrote.tolist()
        for matcher, token, did in zip(self._matchers, tokens.tolist(), written, strict=True):
            if matcher is not None and did:
                matcher.accept(token)

    def join(self, other: "Grammars") -> None:
        """Append the sequences of ``other``."""
        self._matchers += other._matchers

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others."""
        self._matchers = [self._matchers[index] for index in indices]
