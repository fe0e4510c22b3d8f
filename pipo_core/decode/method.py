"""The base class of decoding methods: a method starts sequences from prompts and advances all of them step by step.

Each method is one class in its own file beside this one; `registry` opens them by name. The method holds the model and
its settings; its state holds the running sequences.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch

from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.graphs import BLOCK, Graphs, PassRunner, run_plainly
from pipo_core.decode.prefill import PrefillSettings, PromptReader
from pipo_core.decode.sampling import Sampler
from pipo_core.decode.token_scores import TokenScore
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import ModelSizes
from pipo_core.recipes.methods import MethodSpec


@dataclass(frozen=True)
class StepOutput:
    """The tokens that one step writes for every sequence: one, and one for each kept draft.

    Attributes:
        tokens: ``[B, W]``; sequence ``b`` wrote the first ``counts[b]``. Rejected drafts follow where the method
            projects them, else PADs.
        counts: ``[B]``, from 1 to ``W``.
        offered: drafts that the method made for every sequence.
        confidence: ``c_i``, ``[B]`` fp32; None where the method has no gate or made no draft.
        scores: of each sequence's sampled tokens; None if no sequence asks for them.
        prompt_scores: of each prompt's tokens from the second on, with the first output; None if nobody asks.
    """

    tokens: torch.Tensor
    counts: torch.Tensor
    offered: int = 0
    confidence: torch.Tensor | None = None
    scores: list[list[TokenScore]] | None = None
    prompt_scores: list[list[TokenScore]] | None = None

    @property
    def first(self) -> torch.Tensor:
        """First tokens, ``[B]``."""
        return self.tokens[:, 0]


class PerSequence(Protocol):
    """A part of a running state that sequences can join and leave, such as a cache or the sampler."""

    def join(self, other: Any) -> None:
        """Append the sequences of ``other``."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others."""
        ...


@dataclass
class RunningState:
    """The running sequences of a method.

    Every field belongs to the sequences, one entry each: a tensor ``[B, …]``, a list, a `PerSequence`, or None where
    the method's settings leave the part out. What all sequences share is a field of the method.

    Attributes:
        cache: the backbone's; a method's other caches have as many sequences and positions.
        sampler: what samples the sequences' tokens.
    """

    cache: SequenceCache
    sampler: Sampler

    @property
    def cache_bytes(self) -> int:
        """Bytes of all caches' buffers."""
        caches = (getattr(self, entry.name) for entry in fields(self))
        return sum(cache.nbytes for cache in caches if isinstance(cache, SequenceCache))

    def join(self, other: Self) -> None:
        """Append the sequences of ``other``, a state of the same method."""
        for entry in fields(self):
            setattr(self, entry.name, _joined(getattr(self, entry.name), getattr(other, entry.name)))

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others."""
        for entry in fields(self):
            setattr(self, entry.name, _kept(getattr(self, entry.name), indices))


def _joined(mine: Any, other: Any) -> Any:
    if mine is None:
        return None
    if isinstance(mine, torch.Tensor):
        return torch.cat([mine, other])
    if isinstance(mine, list):
        return mine + other
    mine.join(other)
    return mine


def _kept(part: Any, indices: Sequence[int]) -> Any:
    if part is None:
        return None
    if isinstance(part, torch.Tensor):
        return part[list(indices)]
    if isinstance(part, list):
        return [part[index] for index in indices]
    part.keep(indices)
    return part


@dataclass(frozen=True)
class StepLoad:
    """The conditions of a step that decide, with the model's sizes, how many bytes it moves.

    Attributes:
        context: tokens before the step, in each sequence.
        batch: sequences.
        acceptance: the share of drafts kept or accepted.
        drafts: the option of that name.
        draft_vocab: rows of the draft's LM head; None for all.
    """

    context: int = 0
    batch: int = 1
    acceptance: float = 1.0
    drafts: int = 3
    draft_vocab: int | None = None


StateT = TypeVar("StateT", bound=RunningState)


@dataclass(frozen=True)
class Method(ABC, Generic[StateT]):
    """One decoding method on one model.

    Attributes:
        model: the network.
        pad_id: the PAD, which makes prompts even and takes a rejected draft's place in a slot.
        run: runs the passes of steps. A prefill's passes are never recorded, because its buffers are temporary.
        block: positions of a block of the caches; see `SequenceCache`.
    """

    spec: ClassVar[MethodSpec]

    model: Qwen3_5ForCausalPIPO
    pad_id: int
    run: PassRunner = field(default=run_plainly, kw_only=True)
    block: int = field(default=1, kw_only=True)

    @property
    def max_step_tokens(self) -> int:
        """The most real tokens that a step writes for a sequence."""
        return 1 + (self.spec.fixed_drafts or 0)

    @property
    def max_step_positions(self) -> int:
        """The most positions that a step adds to a sequence's cache."""
        return self.max_step_tokens // self.spec.cache_width

    @property
    def has_mtp_cache(self) -> bool:
        """Whether sequences also keep the MTP block's keys and values."""
        return self.spec.uses_mtp

    @property
    def scores_prompts(self) -> bool:
        """Whether prompts can be scored: each token needs a hidden state of the position before it."""
        return self.spec.cache_width == 1

    @property
    def takes_tau(self) -> bool:
        """Whether sequences may have confidence thresholds of their own."""
        return False

    def open_reader(
        self, prompts: Sequence[Sequence[int]], settings: PrefillSettings, chunk: int | None = None
    ) -> PromptReader:
        """Return a reader of the prompts; a single prompt is read ``chunk`` positions at a time."""
        return PromptReader(
            self.model,
            prompts,
            settings,
            pad_id=self.pad_id,
            width=self.spec.cache_width,
            with_mtp=self.has_mtp_cache,
            chunk=chunk,
            block=self.block,
        )

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], settings: PrefillSettings, *, reader: PromptReader | None = None
    ) -> tuple[StateT, StepOutput]:
        """Return the started sequences and their first output.

        Args:
            prompts: token ids.
            settings: of the sequences.
            reader: a reader that has read the prompts, or a part of them; None to read them now.
        """
        read = (reader or self.open_reader(prompts, settings)).read()
        config, device = self.model.config, self.model.device
        sampler = Sampler(settings.sampling, prompts, config.vocab_size, device, ends=settings.end_ids)
        state, output = self._start(read, sampler)
        return state, replace(output, prompt_scores=read.scores)

    @abstractmethod
    def _start(self, read: PromptReader, sampler: Sampler) -> tuple[StateT, StepOutput]:
        """Return the sequences of prompts that were read, and their first output."""

    @abstractmethod
    def step(self, state: StateT) -> StepOutput:
        """Advance every sequence by one step."""

    @classmethod
    @abstractmethod
    def step_weights(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return the least number of weights that a step reads."""

    @classmethod
    @abstractmethod
    def step_products(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return the least multiplications of a step with weights, for one sequence."""

    @classmethod
    @abstractmethod
    def step_attention(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return the least multiplications of a step with keys and values, for one sequence."""

    @classmethod
    @abstractmethod
    def step_cache_bytes(cls, sizes: ModelSizes, load: StepLoad) -> float:
        """Return the least bytes of keys and values that a step reads for one sequence."""

    def recorded(self, graphs: Graphs | None = None, block: int = BLOCK) -> Self:
        """Return this method with steps of few sequences replayed from recordings (on a GPU: CUDA graphs)."""
        return replace(self, run=graphs or Graphs(), block=block)
