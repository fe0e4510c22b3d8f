"""Decoding methods as the engine sees them: start rows, step them, join and drop them."""

from collections.abc import Sequence
from typing import Any, Protocol

from pipo_core.decode import pair, regular
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.errors import UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


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

    def __init__(self, model: Qwen3_5ForCausalPIPO, tau: float) -> None:
        self.model = model
        self.tau = tau

    def prefill(self, prompts: Sequence[Sequence[int]], settings: RowSettings) -> tuple[pair.PairState, Emitted]:
        """Read prompts; return their rows and first slots."""
        return pair.prefill(self.model, prompts, settings, self.tau)

    def step(self, state: pair.PairState) -> Emitted:
        """Write one slot a row."""
        return pair.step(self.model, state)


def open_method(name: str, model: Qwen3_5ForCausalPIPO, tau: float | None) -> Method:
    """Return a method by its name.

    Raises:
        UsageError: for a name that is neither ``regular`` nor ``pipo``.
    """
    if name == "regular":
        return RegularMethod(model)
    if name == "pipo":
        return PairMethod(model, 0.95 if tau is None else tau)
    raise UsageError(f"unknown decoding method {name!r}", hint="use regular or pipo")
