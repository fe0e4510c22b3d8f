"""What is served and how, and the errors that have a status of their own."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from pipo_core.engine.json_grammar import GrammarMaker
from pipo_core.engine.live import LiveEngine
from pipo_core.errors import CheckpointError
from pipo_core.files import read_object
from pipo_core.serve.gate import LoadGate
from pipo_core.serve.metrics import Metrics
from pipo_core.serve.schemas import Defaults, error_body
from pipo_core.serve.scores import TokenTexts

_BYTES_PER_TOKEN = 24
"""No text has more bytes than this for each of its tokens, on average: words of Qwen's vocabulary have 4 or so."""
_ESCAPED = 6
"""JSON may spell one byte as six."""
_FIELDS_BYTES = 64 << 10
_LARGEST_BODY = 16 << 20


@dataclass
class Service:
    """A model that is served, and how.

    Attributes:
        live: the engine.
        tokenizer: the model's.
        model: the name that clients must give.
        api_key: the key that clients must send; None for no check.
        reasoning: ``separate`` puts a thought into ``reasoning_content``, ``inline`` leaves it in the content.
        defaults: sampling of requests that do not say.
        hosts: names that clients may call this server by, in lower case; None for any.
        origins: of web pages that may use it beside its own, such as ``https://chat.example``.
        max_requests: requests that are answered or wait at once; further ones are turned away with status 429.
        gate: chooses the threshold of requests that name none; None for the engine's.
        max_held_bytes: bytes of bodies that are held at once, while they arrive and until they are answered.
        held_bytes: how many are held now.
        compiling: held while a grammar is compiled.
        started: when the server was started, in seconds since 1970.
        metrics: counters and histograms.
        texts: of single tokens, for log-probabilities.
    """

    live: LiveEngine
    tokenizer: PreTrainedTokenizerBase
    model: str
    api_key: str | None = None
    reasoning: Literal["separate", "inline"] = "separate"
    defaults: Defaults = field(default_factory=Defaults)
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    max_requests: int = 256
    gate: LoadGate | None = None
    max_held_bytes: int = 256 << 20
    held_bytes: int = 0
    started: int = field(default_factory=lambda: int(time.time()))
    compiling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _idle_fields: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.live.stats, self.default_tau)
        self.texts = TokenTexts(self.tokenizer)

    @property
    def ready(self) -> bool:
        """Whether a further request would be taken."""
        return self.live.accepting and self.live.pending < self.max_requests

    def running_with(self, new: int) -> int:
        """Return how many requests run once ``new`` ones are accepted: no more than the batch has places for."""
        stats = self.live.stats()
        return min(self.live.pending + new, stats.running + stats.free)

    def default_tau(self, new: int = 0) -> float | None:
        """Return the threshold of requests that name none, once ``new`` ones are accepted; None for the engine's."""
        return None if self.gate is None else self.gate.tau(self.running_with(new))

    def first_time(self, fields: Iterable[str]) -> list[str]:
        """Return those of some fields of bodies that were not given to this before."""
        new = [name for name in fields if name not in self._idle_fields]
        self._idle_fields.update(new)
        return new

    @cached_property
    def grammars(self) -> GrammarMaker:
        """What compiles grammars.

        Raises:
            UsageError: if xgrammar is not installed.
        """
        return GrammarMaker(self.tokenizer, self.live.end_ids)

    @property
    def max_prompt_bytes(self) -> int:
        """Bytes of a prompt beyond which it cannot fit the context; it is not tokenized to find out."""
        return _BYTES_PER_TOKEN * self.live.max_length

    @property
    def max_body_bytes(self) -> int:
        """Bytes of a body beyond which it is not read."""
        return min(_LARGEST_BODY, _FIELDS_BYTES + _ESCAPED * self.max_prompt_bytes)


class Refused(Exception):
    """A request that is rejected with its own HTTP status and an error body in OpenAI's shape."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", **fields: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind=kind, **fields)


def read_defaults(folder: Path) -> Defaults:
    """Return the sampling that a checkpoint's ``generation_config.json`` records; what it leaves out is off.

    Raises:
        CheckpointError: if the file is damaged, or a value is outside the range that requests have.
    """
    file = folder / "generation_config.json"
    recorded = read_object(file) if file.is_file() else {}
    said = {name: recorded[name] for name in Defaults.model_fields if recorded.get(name) is not None}
    if recorded.get("do_sample") is False:
        said["temperature"] = 0
    try:
        return Defaults.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{file}: {first['loc'][0]}: {first['msg']}") from None
