"""Decoding methods as the engine sees them: start rows, step them, join and drop them."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from pipo_core.decode import pair, regular
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.errors import CheckpointError, UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO

DEFAULT_TAU = 0.95
"""The paper's threshold."""


class RowState(Protocol):
    """The running rows of any method."""

    def join(self, other: Any) -> None:
        """Append the rows of another state of the same method."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        ...


class Method(Protocol):
    """One decoding method on one model."""

    model: Qwen3_5ForCausalPIPO

    def prefill(self, prompts: Sequence[Sequence[int]], settings: RowSettings) -> tuple[Any, Emitted]:
        """Read prompts; return their rows and what each writes first."""
        ...

    def step(self, state: Any) -> Emitted:
        """Advance every row by one slot."""
        ...


class RegularMethod:
    """`pipo_core.decode.regular` on a model."""

    def __init__(self, model: Qwen3_5ForCausalPIPO) -> None:
        self.model = model

    def prefill(self, prompts: Sequence[Sequence[int]], settings: RowSettings) -> tuple[regular.RegularState, Emitted]:
        """Read prompts; return their rows and first tokens."""
        return regular.prefill(self.model, prompts, settings)

    def step(self, state: regular.RegularState) -> Emitted:
        """Write one token a row."""
        return regular.step(self.model, state)


class PairMethod:
    """`pipo_core.decode.pair` on a model at one threshold."""

    def __init__(self, model: Qwen3_5ForCausalPIPO, tau: float, draft_vocab: DraftVocab | None = None) -> None:
        self.model = model
        self.tau = tau
        self.draft_vocab = draft_vocab

    def prefill(self, prompts: Sequence[Sequence[int]], settings: RowSettings) -> tuple[pair.PairState, Emitted]:
        """Read prompts; return their rows and first slots."""
        return pair.prefill(self.model, prompts, settings, self.tau, draft_vocab=self.draft_vocab)

    def step(self, state: pair.PairState) -> Emitted:
        """Write one slot a row."""
        return pair.step(self.model, state)


def open_method(
    name: str, model: Qwen3_5ForCausalPIPO, tau: float | None, *, draft_vocab: DraftVocab | None = None
) -> Method:
    """Return a method by its name; a draft vocabulary counts for ``pipo`` alone.

    Raises:
        UsageError: for a name that is neither ``regular`` nor ``pipo``, or a threshold that does not fit the method.
        CheckpointError: if the model's pair parts are untrained, for they would decide at random.
    """
    if name == "regular":
        if tau is not None:
            raise UsageError("method regular has no threshold")
        return RegularMethod(model)
    if name == "pipo":
        if model.fresh_parts:
            raise CheckpointError(
                f"the checkpoint is no PIPO model: it has no {', '.join(model.fresh_parts)}",
                hint="decode it with method regular, or train it first: pipo train",
            )
        threshold = DEFAULT_TAU if tau is None else tau
        if not math.isfinite(threshold):
            raise UsageError(f"tau = {threshold} is not a number")
        return PairMethod(model, threshold, draft_vocab)
    raise UsageError(f"unknown decoding method {name!r}", hint="use regular or pipo")
