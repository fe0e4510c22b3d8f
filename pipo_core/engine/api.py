"""What an engine is: requests in, completions out.

Evaluation, rollouts, distillation, bench and chat know only `Engine`. The live server also needs `SteppedEngine`, an
engine that is advanced step by step. Counts are of real tokens: a PAD, which takes a rejected draft's place, is in no
text, count, stop or penalty.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.sampling import SamplingParams
from pipo_core.errors import UsageError

FinishReason = Literal["stop", "length", "cancelled", "error"]
TokenKind = Literal["first", "kept", "rejected"]


class CapacityError(UsageError):
    """A request whose prompt and budget can never fit the engine."""


@dataclass(frozen=True)
class Request:
    """One text to write.

    Attributes:
        id: comes back with the completion.
        prompt_ids: the prompt, without PADs; any length of at least 1.
        sampling: how tokens are sampled.
        max_tokens: budget in real tokens; None for no such limit.
        max_slots: budget in slots, one slot a step; None for no such limit. One of the two is needed.
        stop_ids: tokens that end the text; they are not part of it. None for the engine's own (`Engine.end_ids`).
        stop: strings that end the text; they are not part of it.
        ignore_end: go on after `stop_ids` (for measuring).
        record: keep every slot in the completion (for distillation).
        messages: the chat that the prompt is, in place of `prompt_ids`; the engine lays it out.

    Raises:
        UsageError: for an empty prompt, an empty stop string, or no positive whole budget.
    """

    id: str
    prompt_ids: tuple[int, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    max_slots: int | None = None
    stop_ids: frozenset[int] | None = None
    stop: tuple[str, ...] = ()
    ignore_end: bool = False
    record: bool = False
    messages: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt_ids and not self.messages:
            raise UsageError(f"request {self.id}: the prompt is empty")
        if any(not stop for stop in self.stop):
            raise UsageError(f"request {self.id}: a stop string is empty")
        budgets = [budget for budget in (self.max_tokens, self.max_slots) if budget is not None]
        if not budgets or not all(isinstance(budget, int) and budget >= 1 for budget in budgets):
            raise UsageError(f"request {self.id}: max_tokens or max_slots must be set, to a whole number from 1 on")

    def max_positions(self, per_step: int) -> int:
        """Return how many positions the answer can fill in a cache, if a step fills at most ``per_step``."""
        limits = [self.max_tokens, None if self.max_slots is None else self.max_slots * per_step]
        return min(limit for limit in limits if limit is not None)


class Slot(NamedTuple):
    """One slot as it was sampled: the first token, which may end the text, and the draft.

    ``draft`` is None where the first token ended the text or the method made none.
    """

    first: int
    draft: int | None
    kept: bool


@dataclass
class Completion:
    """What became of a request. Fields that an engine cannot report (`Reports`) are None.

    Attributes:
        id: the request's.
        token_ids: the answer's real tokens, without the end token, up to the one that completed a stop string.
        text: decoded from them, without the stop string.
        prompt_tokens: of the prompt, PADs not counted; None where the engine does not report it.
        tokens: real tokens written, the end token counted.
        slots: slots written, the one with the end token included.
        drafts: drafts that the model offered (one a slot, except where the first token ended the text).
        kept: drafts that were kept.
        slot_token_counts: real tokens written in each step, the end token counted; 1 or 2 where a step is a slot.
        finish_reason: ``stop`` (end token or stop string), ``length`` (a budget was reached), ``cancelled``, or
            ``error``; what was written before a cancellation or an error is here.
        error: what went wrong, where ``finish_reason`` is ``error``.
        record: every slot, end tokens and rejected drafts included, where the request asks for it.
        ttft_s: seconds from admission to the first slot.
        time_s: seconds from admission to the last slot.
    """

    id: str
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int | None = None
    tokens: int = 0
    slots: int | None = None
    drafts: int | None = None
    kept: int | None = None
    slot_token_counts: list[int] | None = None
    finish_reason: FinishReason = "length"
    error: str | None = None
    record: list[Slot] | None = None
    ttft_s: float = 0.0
    time_s: float = 0.0


class Written(NamedTuple):
    """One token that a step wrote, or a draft that was rejected.

    Attributes:
        token_id: the token; of a rejected draft that its method never projected, PAD.
        kind: a step's ``first`` token, a ``kept`` draft, or a ``rejected`` one, which is no part of the answer.
        confidence: ``c_i`` of a draft, in [0, 1]; None for first tokens and for methods without a gate.
    """

    token_id: int
    kind: TokenKind
    confidence: float | None = None


class Delta(NamedTuple):
    """What one step added to one request.

    Attributes:
        id: the request's.
        text: final text: an incomplete character and what may be the beginning of a stop string are held back. A
            request's texts, one after the other, are its completion's text.
        tokens: in the order in which they stand in the answer, without the end token; rejected drafts in their places.
        completion: set on the request's last delta.
    """

    id: str
    text: str = ""
    tokens: tuple[Written, ...] = ()
    completion: Completion | None = None


@dataclass(frozen=True)
class EngineStats:
    """Where an engine stands: requests now, and counts since it was opened.

    Attributes:
        running: requests that are being read or written.
        waiting: requests that have not started.
        free: requests that could run beside those that do.
        steps: calls of `step`: pieces of prompts read and method steps taken.
        tokens: real tokens written, end tokens included.
        drafts: drafts offered.
        kept: drafts kept.
    """

    running: int = 0
    waiting: int = 0
    free: int = 0
    steps: int = 0
    tokens: int = 0
    drafts: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Reports:
    """What an engine can report beside texts and token counts.

    Attributes:
        slots: whether completions have ``slots`` and ``slot_token_counts``.
        drafts: whether completions have ``drafts`` and ``kept``.
        record: whether requests may ask for a ``record``.
        device: what runs the model, as tables name it; None where that is not known.
        config: the model's shape, for hardware limits; None where that is not known.
        weight_bytes: bytes of one weight.
    """

    slots: bool = True
    drafts: bool = True
    record: bool = True
    device: str | None = None
    config: Qwen3_5TextConfig | None = None
    weight_bytes: int = 2


def request_seed(*keys: object) -> int:
    """Return a seed below 2^63 that depends on the keys alone: the same on every machine, whatever else runs."""
    digest = hashlib.sha256("\n".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Engine(Protocol):
    """Runs requests together; a request's text does not depend on which others run beside it.

    One thread uses an engine at a time; `pipo_core.engine.live` serves many.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            UsageError: if the model runs elsewhere and the settings name no tokenizer.
        """
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text of this model."""
        ...

    @property
    def max_length(self) -> int:
        """The most tokens that prompt and budget of a request may have together and are sure to fit."""
        ...

    @property
    def reports(self) -> Reports:
        """What its completions tell."""
        ...

    def stream(self, requests: Iterable[Request]) -> Iterator[Delta]:
        """Yield what is written as it is written; requests whose stream is closed early are cancelled.

        Raises:
            UsageError: before anything runs, if a request cannot be taken.
        """
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions in the order in which they end; raises what `stream` does."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request at once; one that has ended, or never was, is left alone."""
        ...

    def close(self) -> None:
        """Give back what the engine holds: processes, connections, memory. It cannot be used afterwards."""
        ...


class SteppedEngine(Engine, Protocol):
    """An engine that advances when it is told to: `add`, then `step` for as long as it `has_work`."""

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
        """
        ...

    def step(self) -> list[Delta]:
        """Read one piece of prompts or advance every sequence by one step; return what that added."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether a request has not ended, or its last delta was not handed out."""
        ...

    def stats(self) -> EngineStats:
        """Return where the engine stands."""
        ...
