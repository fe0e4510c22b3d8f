"""Decoding methods as the engine sees them: start rows, step them, join and drop them."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from pipo_core.decode import pair, regular
from pipo_core.decode.cache import RowCache
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import RowSampler
from pipo_core.errors import CheckpointError, UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO

DEFAULT_TAU = 0.95
"""The paper's threshold."""


class RowState(Protocol):
    """The running rows of any method.

    Attributes:
        cache: the backbone's; a method's others have as many rows and positions.
        sampler: what draws the rows' tokens.
    """

    cache: RowCache
    sampler: RowSampler

    def join(self, other: Any) -> None:
        """Append the rows of another state of the same method."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Make row ``i`` what row ``rows[i]`` was and forget the others."""
        ...


class Method(Protocol):
    """One decoding method on one model.

    Attributes:
        model: the network.
        width: tokens that a cached position holds: 2 for slots.
        stride: positions that a step adds to a row at most.
        with_mtp: whether rows also keep the MTP block's keys and values.
    """

    model: Qwen3_5ForCausalPIPO
    width: int
    stride: int
    with_mtp: bool

    def open_reader(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, chunk: int | None = None
    ) -> PromptReader:
        """Return what reads the prompts, a single one ``chunk`` positions at a time."""
        ...

    def prefill(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, *, reader: PromptReader | None = None
    ) -> tuple[Any, Emitted]:
        """Return the rows of the prompts and what each writes first; ``reader`` may have read them."""
        ...

    def step(self, state: Any) -> Emitted:
        """Advance every row by one step."""
        ...


class RegularMethod:
    """`pipo_core.decode.regular` on a model."""

    width = 1
    stride = 1
    with_mtp = False

    def __init__(self, model: Qwen3_5ForCausalPIPO) -> None:
        self.model = model

    def open_reader(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, chunk: int | None = None
    ) -> PromptReader:
        """Return what reads the prompts."""
        return regular.open_reader(self.model, prompts, settings, chunk)

    def prefill(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, *, reader: PromptReader | None = None
    ) -> tuple[regular.RegularState, Emitted]:
        """Return rows and first tokens."""
        return regular.prefill(self.model, prompts, settings, reader=reader)

    def step(self, state: regular.RegularState) -> Emitted:
        """Write one token a row."""
        return regular.step(self.model, state)


class PairMethod:
    """`pipo_core.decode.pair` on a model at one threshold; with ``draw_all``, rejected drafts are drawn too."""

    width = 2
    stride = 1

    def __init__(self, model: Qwen3_5ForCausalPIPO, tau: float, *, draw_all: bool = False) -> None:
        self.model = model
        self.tau = tau
        self.draw_all = draw_all
        self.with_mtp = tau < 1

    def open_reader(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, chunk: int | None = None
    ) -> PromptReader:
        """Return what reads the prompts as slots."""
        return pair.open_reader(self.model, prompts, settings, self.tau, chunk)

    def prefill(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, *, reader: PromptReader | None = None
    ) -> tuple[pair.PairState, Emitted]:
        """Return rows and first slots."""
        return pair.prefill(self.model, prompts, settings, self.tau, reader=reader, draw_all=self.draw_all)

    def step(self, state: pair.PairState) -> Emitted:
        """Write one slot a row."""
        return pair.step(self.model, state)


def open_method(name: str, model: Qwen3_5ForCausalPIPO, tau: float | None) -> Method:
    """Return a method by its name.

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
        return PairMethod(model, threshold)
    raise UsageError(f"unknown decoding method {name!r}", hint="use regular or pipo")
