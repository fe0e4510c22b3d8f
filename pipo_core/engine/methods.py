"""Decoding methods as the engine sees them: start rows, step them, join and drop them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from pipo_core.decode import eagle, mtp, pair, regular
from pipo_core.decode.cache import RowCache
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.graphs import BLOCK, Graphs, PassRunner, run_plainly
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


@dataclass(frozen=True)
class Method:
    """One decoding method on one model.

    Attributes:
        name: ``regular``, ``mtp``, ``eagle`` or ``pipo``.
        model: the network.
        start: its `prefill`, with ``model, prompts, settings, *options`` and a reader.
        advance: its `step`.
        options: what it has beside prompts and settings: τ, draft vocabulary, drafts.
        width: tokens that a cached position holds: 2 for slots.
        stride: positions that a step adds to a row at most.
        with_mtp: whether rows also keep the MTP block's keys and values.
        run: how steps run their passes.
        block: positions of a block of the rows' caches.
    """

    name: str
    model: Qwen3_5ForCausalPIPO
    start: Callable[..., tuple[Any, Emitted]]
    advance: Callable[[Qwen3_5ForCausalPIPO, Any], Emitted]
    options: tuple[Any, ...] = ()
    width: Literal[1, 2] = 1
    stride: int = 1
    with_mtp: bool = False
    run: PassRunner = run_plainly
    block: int = 1

    def open_reader(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, chunk: int | None = None
    ) -> PromptReader:
        """Return what reads the prompts, a single one ``chunk`` positions at a time."""
        return PromptReader(self.model, prompts, settings, width=self.width, with_mtp=self.with_mtp, chunk=chunk)

    def prefill(
        self, prompts: Sequence[Sequence[int]], settings: RowSettings, *, reader: PromptReader | None = None
    ) -> tuple[Any, Emitted]:
        """Return the rows of the prompts and what each writes first; ``reader`` may have read them."""
        return self.start(self.model, prompts, settings, *self.options, reader=reader)

    def step(self, state: Any) -> Emitted:
        """Advance every row by one step."""
        return self.advance(self.model, state)

    def recorded(self, graphs: Graphs | None = None, block: int = BLOCK) -> "Method":
        """Return this method with steps of few rows replayed from recordings: on a GPU, CUDA graphs."""
        return replace(self, run=graphs or Graphs(), block=block)


def open_method(
    name: str,
    model: Qwen3_5ForCausalPIPO,
    tau: float | None,
    *,
    drafts: int = 3,
    draft_vocab: DraftVocab | None = None,
    acceptance: float | None = None,
    draw_all: bool = False,
) -> Method:
    """Return a method by its name.

    Args:
        name: ``regular``, ``mtp``, ``eagle`` or ``pipo``.
        model: the network.
        tau: confidence threshold of ``pipo``; 0.95 where None.
        drafts: length of ``eagle``'s chain.
        draft_vocab: where ``pipo`` takes drafts from; the whole vocabulary where None.
        acceptance: ``pipo``: fix the share of drafts kept, for measuring; None leaves it to the confidence.
        draw_all: ``pipo``: project and draw rejected drafts too.

    Raises:
        UsageError: for another name, or a threshold that does not fit the method.
        CheckpointError: if parts that the method needs are untrained, for they would decide at random.
    """
    if name not in ("regular", "mtp", "eagle", "pipo"):
        raise UsageError(f"unknown decoding method {name!r}", hint="use regular, mtp, eagle or pipo")
    if name != "pipo" and tau is not None:
        raise UsageError(f"method {name} has no threshold")
    if name == "regular":
        return Method(name, model, regular.prefill, regular.step)
    if name == "pipo":
        if model.fresh_parts:
            raise CheckpointError(
                f"the checkpoint is no PIPO model: it has no {', '.join(model.fresh_parts)}",
                hint="decode it with method regular, or train it first: pipo train",
            )
        threshold = DEFAULT_TAU if tau is None else tau
        if not math.isfinite(threshold):
            raise UsageError(f"tau = {threshold} is not a number")
        options = (threshold, draft_vocab, acceptance, draw_all)
        return Method(name, model, pair.prefill, pair.step, options, width=2, with_mtp=threshold < 1)
    if "mtp" in model.fresh_parts:
        raise CheckpointError(
            f"method {name} needs an MTP head, and the checkpoint has none", hint="use method regular"
        )
    if name == "mtp":
        return Method(name, model, mtp.prefill, mtp.step, stride=2, with_mtp=True)
    return Method(name, model, eagle.prefill, eagle.step, (drafts,), stride=drafts + 1, with_mtp=True)
