"""Events from the training process to its supervisor: one JSON object a line on standard output.

Events by their ``event``:

``encode``   rows are being tokenized: ``name`` (train, validation), ``done``
``begin``    training starts: ``step`` (finished already), ``steps``, ``rows``, ``dropped``, ``dropped_validation``
``step``     an optimizer step is over: ``step``
``log``      a row of metrics: ``step`` and the figures
``info``     what it is doing: ``message``
``warn``     something the user should know: ``message``
``save``     a checkpoint is complete: ``step``
``stopped``  it was asked to stop and did: ``step``
``done``     the artifact is written: ``step``, ``rows``, ``dropped``
``error``    it failed: ``kind`` (class), ``message``, ``hint``
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from pipo_core.errors import CheckpointError, MachineError, MissingInputError, PipoError, UsageError

Event = dict[str, Any]

_ERRORS = {kind.__name__: kind for kind in (CheckpointError, MachineError, MissingInputError, UsageError)}
_COUNT_EVERY_SECONDS = 0.1
_DIGITS = 8
_NO_FIGURES = ("global_step/max_steps", "elapsed_time", "remaining_time", "train_speed(s/it)", "memory(GiB)")
"""Entries for people that ms-swift adds to the Trainer's figures."""

SMALLER = "a smaller batch.per_device, or shorter rows or answers, as another training: --restart or run=NAME"
"""Hint for a lack of memory."""


def figures_of(logs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a row of metrics from the figures that the Trainer logged; None for the summary that it logs last.

    Figures are rounded as ms-swift rounds those that it prints; in its checkpoints they are not. NaN and infinities,
    which JSON cannot hold, become their names.

    Args:
        logs: the Trainer's figures by name.
    """
    if "loss" not in logs and "eval_loss" not in logs:
        return None
    figures = {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in logs.items()}
    return {name: _plain(value) for name, value in figures.items() if name not in _NO_FIGURES}


class EventWriter:
    """Writes events; silent on all processes but the first."""

    def __init__(self, stream: TextIO | None, on_lost: Callable[[], None]) -> None:
        """Write to a stream.

        Args:
            stream: None writes nothing.
            on_lost: called once if the reader has gone away; later events are dropped, and no work is lost.
        """
        self._stream = stream
        self._on_lost = on_lost
        self._last_count = -math.inf

    def write(self, event: str, **fields: Any) -> None:
        """Write one event; NaN and infinities, which JSON cannot hold, become their names."""
        if self._stream is None:
            return
        plain = {key: _plain(value) for key, value in fields.items()}
        try:
            self._stream.write(json.dumps({"event": event, **plain}, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError:
            self._stream = None
            self._on_lost()

    def count(self, event: str, **fields: Any) -> None:
        """Write an event that only advances a count; at most ten of them are written a second."""
        now = time.monotonic()
        if now - self._last_count >= _COUNT_EVERY_SECONDS:
            self._last_count = now
            self.write(event, **fields)

    def error(self, error: BaseException) -> None:
        """Write an ``error`` event: message and hint of a PipoError, class and first line of anything else."""
        if isinstance(error, PipoError):
            self.write("error", kind=type(error).__name__, message=error.message, hint=error.hint)
        else:
            first = (str(error).strip().splitlines() or [""])[0]
            self.write("error", kind="", message=f"{type(error).__name__}: {first}", hint=None)


def parse_event(line: str) -> Event | None:
    """Return the event that a line holds, None if it holds none."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def as_error(event: Event) -> PipoError:
    """Return the exception that an ``error`` event describes."""
    kind = _ERRORS.get(event.get("kind", ""), PipoError)
    return kind(str(event["message"]), hint=event.get("hint"))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
