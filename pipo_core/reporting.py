"""Messages and progress of jobs, independent of where they are shown: on a terminal, in a log, in a test.

A job reports to a `Reporter`. Long work advances a `Progress`, which counts units and sends a `ProgressEvent` to each
listener. A terminal, a log and a journal differ only in their listeners.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

Phase = Literal["begin", "move", "end"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The state of a piece of work at one moment.

    Attributes:
        phase: whether the work begins, moves on or ends.
        title: the name of the work.
        unit: the word for one unit.
        total: units in all; None if unknown.
        done: units done in all.
        done_here: units done by this process; resumed work begins with more than 0 done.
        seconds: the time that `done_here` units took.
        time: when this was, on a monotonic clock.
        figures: the latest value of each figure, by name.
    """

    phase: Phase
    title: str
    unit: str
    total: int | None
    done: int
    done_here: int
    seconds: float
    time: float
    figures: Mapping[str, float]

    @property
    def rate(self) -> float | None:
        """Return the units per second; None before the first."""
        return self.done_here / self.seconds if self.done_here > 0 and self.seconds > 0 else None


Listener = Callable[[ProgressEvent], None]


class Progress:
    """Counts units of work and informs its listeners. A context manager: leaving it ends the progress."""

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str = "item",
        *listeners: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count towards `total` units.

        Args:
            title: the name of the work.
            total: units in all; None if unknown.
            unit: the word for one unit.
            listeners: called in this order with every event.
            clock: a monotonic clock in seconds.
        """
        self._title, self._total, self._unit, self._clock = title, total, unit, clock
        self._listeners = [*listeners]
        self._figures: dict[str, float] = {}
        self._done = self._done_before = 0
        self._moved = False
        self._began = clock()

    def listen(self, listener: Listener) -> None:
        """Add a listener, which gets the events from the next one on."""
        self._listeners.append(listener)

    def __enter__(self) -> Self:
        """Begin."""
        self._tell("begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End, also after an exception."""
        self._tell("end")

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units as done.

        Args:
            n: the number of units.
            figures: new values of the figures that are shown behind the count.
        """
        self._move_to(self._done + n, figures)

    def update(self, done: int, **figures: float) -> None:
        """Set the number of units that are done in all. The first call sets those done before this process.

        Args:
            done: the number of units.
            figures: new values of the figures that are shown behind the count.
        """
        if not self._moved:
            self._done_before, self._began = done, self._clock()
        self._move_to(done, figures)

    def _move_to(self, done: int, figures: Mapping[str, float]) -> None:
        self._done, self._moved = done, True
        self._figures.update(figures)
        self._tell("move")

    def _tell(self, phase: Phase) -> None:
        now = self._clock()
        event = ProgressEvent(
            phase=phase,
            title=self._title,
            unit=self._unit,
            total=self._total,
            done=self._done,
            done_here=self._done - self._done_before,
            seconds=now - self._began,
            time=now,
            figures=dict(self._figures),
        )
        for listener in self._listeners:
            listener(event)


class Reporter(Protocol):
    """Takes the messages and progress of a job."""

    def info(self, msg: str) -> None:
        """Show a line that the user wants to read."""
        ...

    def warn(self, msg: str) -> None:
        """Show a line that the user should act on."""
        ...

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a progress for new work, which the caller enters.

        Args:
            title: the name of the work.
            total: units in all; None if unknown.
            unit: the word for one unit.
        """
        ...

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Return a context in which it is shown that something takes its time, such as loading a model."""
        ...


class SilentReporter:
    """Shows nothing: the default for use as a library and for tests."""

    def waiting(self, what: str) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing is shown
        """Return a context that shows nothing."""
        return nullcontext()

    def info(self, msg: str) -> None:
        """Ignore the line."""

    def warn(self, msg: str) -> None:
        """Ignore the line."""

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a progress without listeners."""
        return Progress(title, total, unit)
