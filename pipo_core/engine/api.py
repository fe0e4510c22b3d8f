"""The protocol of engines: requests in, completions out.

Evaluation, rollouts, distillation, bench and chat use only `Engine`. The live server also needs `SteppedEngine`, an
engine that is advanced step by step. Token counts exclude PAD, the token that takes a rejected draft's place: it is
not in any text, count, stop string or penalty. The tokens that are counted are called real tokens.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.sampling import SamplingParams
from pipo_core.decode.token_scores import TokenScore
from pipo_core.errors import UsageError
from pipo_core.model.sizes import BF16, Widths

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
        stop_ids: tokens that end the text; they are not part of it. None for the engine's (`Engine.end_ids`).
        stop: strings that end the text; they are not part of it.
        stop_behind: they count only behind this text and the line breaks that follow it: ``</think>``, for stop
            strings that are meant for the answer and not for the thought. Empty if they count from the beginning.
        ignore_end: go on after `stop_ids` (for measuring).
        record: keep every slot in the completion (for distillation).
        messages: a chat instead of `prompt_ids`; the engine lays it out.
        tau: confidence threshold of a pair model; None for the engine's.
        prompt_scores: how many of the likeliest tokens are recorded at each token of the prompt, with
            log-probabilities; None scores nothing. Pair models cannot: they read two tokens a position.
        once: a failure of the server that is asked ends the request; it is not asked again (for measuring, and for
            somebody who waits for it).

    Raises:
        UsageError: for an empty prompt, an empty stop string, a threshold that is not a number, or a budget that is
            missing or not a whole number ≥ 1.
    """

    id: str
    prompt_ids: tuple[int, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    max_slots: int | None = None
    stop_ids: frozenset[int] | None = None
    stop: tuple[str, ...] = ()
    stop_behind: str = ""
    ignore_end: bool = False
    record: bool = False
    messages: tuple[Mapping[str, str], ...] = ()
    tau: float | None = None
    prompt_scores: int | None = None
    once: bool = False

    def __post_init__(self) -> None:
        if self.tau is not None and not math.isfinite(self.tau):
            raise UsageError(f"request {self.id}: tau = {self.tau} is not a number")
        if not self.prompt_ids and not self.messages:
            raise UsageError(f"request {self.id}: the prompt is empty")
        if any(not stop for stop in self.stop):
            raise UsageError(f"request {self.id}: a stop string is empty")
        budgets = [budget for budget in (self.max_tokens, self.max_slots) if budget is not None]
        if not budgets or not all(isinstance(budget, int) and budget >= 1 for budget in budgets):
            raise UsageError(f"request {self.id}: max_tokens or max_slots must be set, to a whole number of at least 1")

    def max_positions(self, per_step: int) -> int:
        """Return how many positions the answer can fill in a cache, if a step fills at most ``per_step``."""
        limits = [self.max_tokens, None if self.max_slots is None else self.max_slots * per_step]
        return min(limit for limit in limits if limit is not None)


class Slot(NamedTuple):
    """One slot as it was sampled.

    Attributes:
        first: the first token, which may end the text.
        draft: the draft; None if the first token ended the text or the method made none.
        kept: whether the draft was kept.
    """

    first: int
    draft: int | None
    kept: bool


@dataclass
class Completion:
    """The outcome of a request. Fields that an engine cannot report (`Reports`) are None.

    Attributes:
        id: the request's.
        token_ids: the answer's real tokens, without the end token, up to the one that completed a stop string.
        text: decoded from them, without the stop string.
        prompt_tokens: of the prompt, PADs not counted; None where the engine does not report it.
        tokens: real tokens written, the end token counted.
        slots: slots written, the one with the end token included.
        drafts: drafts that the model offered (one a slot, except if the first token ended the text).
        kept: drafts that were kept.
        slot_token_counts: real tokens written in each step, the end token counted; 1 or 2 if a step is a slot.
        finish_reason: ``stop`` (end token or stop string), ``length`` (a budget was reached), ``cancelled``, or
            ``error``; what was written before a cancellation or an error is here.
        error: what went wrong, if ``finish_reason`` is ``error``.
        lost: whether it failed because of the engine or the servers, not by itself: asked again, it may be answered.
        record: every slot, end tokens and rejected drafts included, if the request asks for it.
        scores: of the tokens written, the end token's included, if the request's sampling asks for them.
        prompt_scores: of the prompt's tokens from the second on, if the request asks for them.
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
    lost: bool = False
    record: list[Slot] | None = None
    scores: list[TokenScore] | None = None
    prompt_scores: list[TokenScore] | None = None
    ttft_s: float = 0.0
    time_s: float = 0.0


class Written(NamedTuple):
    """One token that a step wrote, or a draft that was rejected.

    Attributes:
        token_id: the token; PAD for a rejected draft that the method did not project to the vocabulary.
        kind: a step's ``first`` token, a ``kept`` draft, or a ``rejected`` one, which is not part of the answer.
        confidence: ``c_i`` of a draft, in [0, 1]; None for first tokens and for methods without a gate.
    """

    token_id: int
    kind: TokenKind
    confidence: float | None = None


class Delta(NamedTuple):
    """What one step added to one request.

    Attributes:
        id: the request's.
        text: final text. An incomplete character and a possible beginning of a stop string are held back. The texts
            of a request's deltas, joined, are its completion's text.
        tokens: in the answer's order, without the end token; rejected drafts stand where they were rejected.
        completion: set on the request's last delta.
        scores: of the tokens written, the end token's included, if the request asks for them.
    """

    id: str
    text: str = ""
    tokens: tuple[Written, ...] = ()
    completion: Completion | None = None
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class EngineStats:
    """An engine's state: its current requests, and counts since it was opened.

    Attributes:
        running: requests whose prompt is being read or whose answer is being written.
        waiting: requests that have not started.
        free: how many more requests the batch has places for.
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
    """What an engine can tell of itself.

    Attributes:
        device: name of the device that runs the model, for tables; None if unknown.
        config: the model's shape, for hardware limits; None if unknown.
        widths: bytes of a weight, and of what is not quantised.
        cache_bytes: bytes that the running sequences' caches take now; None if unknown.
    """

    device: str | None = None
    config: Qwen3_5TextConfig | None = None
    widths: Widths = BF16
    cache_bytes: int | None = None


def request_seed(*keys: object) -> int:
    """Return a seed below 2^63 that depends only on the keys: the same on every machine."""
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
        """The most tokens of prompt and budget together that fit for any request."""
        ...

    @property
    def reports(self) -> Reports:
        """What the engine can report."""
        ...

    def stream(self, requests: Iterable[Request]) -> Iterator[Delta]:
        """Yield the requests' deltas as they are written; requests whose stream is closed early are cancelled.

        Raises:
            UsageError: before anything runs, if a request is not valid for this engine.
        """
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the requests' completions in the order in which they end.

        Raises:
            UsageError: before anything runs, if a request is not valid for this engine.
        """
        ...

    def refusal(self, request: Request) -> str | None:
        """Return why a request can never fit (what `CapacityError` would say); None if it does or is not known."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request at once; nothing happens if it has ended or is unknown."""
        ...

    def close(self) -> None:
        """Release the engine's processes, connections and memory. It cannot be used afterwards."""
        ...


class SteppedEngine(Engine, Protocol):
    """An engine that its caller advances: `add` requests, then `step` while it `has_work`."""

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
        """
        ...

    def step(self) -> list[Delta]:
        """Read one piece of prompts, or advance every sequence by one step, and return the deltas."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether there are requests that have not ended, or deltas that `step` has not returned."""
        ...

    def stats(self) -> EngineStats:
        """Return the engine's state and counts."""
        ...
