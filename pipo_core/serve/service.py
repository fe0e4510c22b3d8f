"""What is served and how, and the errors that have a status of their own."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from pipo_core.engine.live import LiveEngine
from pipo_core.errors import CheckpointError
from pipo_core.files import read_object
from pipo_core.serve.metrics import Metrics
from pipo_core.serve.schemas import Defaults, error_body

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
        max_requests: requests that are answered or wait at once; further ones are turned away with status 429.
        metrics: counters.
        started: when the server was started, in seconds since 1970.
    """

    live: LiveEngine
    tokenizer: PreTrainedTokenizerBase
    model: str
    api_key: str | None = None
    reasoning: Literal["separate", "inline"] = "separate"
    defaults: Defaults = field(default_factory=Defaults)
    hosts: frozenset[str] | None = None
    max_requests: int = 256
    metrics: Metrics = field(default_factory=Metrics)
    started: int = field(default_factory=lambda: int(time.time()))

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
