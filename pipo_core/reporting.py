"""How a job tells what it does, without knowing who listens: a terminal, a log, a test.

A job reports to a `Reporter`. Long work moves a `Progress`, which counts and tells each listener a `ProgressEvent`;
a terminal, a log and a journal differ only in their listeners.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

Phase = Literal["begin", "move", "end"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a piece of work is at one moment.

    Attributes:
        phase: what happened: the work begins, moves on or ends.
        title: what is done.
        unit: the word for one unit.
        total: units in all; None if not known.
        done: units done in all.
        done_here: units done by this process; work that is resumed begins in the middle.
        seconds: what `done_here` units took.
        time: when this was, on a clock that only goes forward.
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
        """Units a second; None before the first."""
        return self.done_here / self.seconds if self.done_here > 0 and self.seconds > 0 else None


Listener = Callable[[ProgressEvent], None]


class Progress:
    """Counts units of work and tells its listeners. A context manager: leaving it ends the progress."""

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
            title: what is done.
            total: units in all; None if not known.
            unit: the word for one unit.
            listeners: called with every event, in their order.
            clock: seconds that only go forward.
        """
        self._title, self._total, self._unit, self._clock = title, total, unit, clock
        self._listeners = [*listeners]
        self._figures: dict[str, float] = {}
        self._done = self._done_before = 0
        self._moved = False
        self._began = clock()

    def listen(self, listener: Listener) -> None:
        """Tell `listener`, too, from the next event on."""
        self._listeners.append(listener)

    def __enter__(self) -> Self:
        """Begin."""
        self._tell("begin")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End, whatever happened."""
        self._tell("end")

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units as done.

        Args:
            n: units.
            figures: new values of figures that are shown behind the count.
        """
        self._move_to(self._done + n, figures)

    def update(self, done: int, **figures: float) -> None:
        """State that `done` units are done in all; what the first call states was done before this process.

        Args:
            done: units.
            figures: new values of figures that are shown behind the count.
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
    """What a job reports to."""

    def info(self, msg: str) -> None:
        """Say a line that the user wants to read."""
        ...

    def warn(self, msg: str) -> None:
        """Say a line that the user should act on."""
        ...

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return the progress of new work over `total` units (None: not known); the caller enters it."""
        ...


class SilentReporter:
    """Says nothing: the default for use as a library and for tests."""

    def info(self, msg: str) -> None:
        """Say nothing."""

    def warn(self, msg: str) -> None:
        """Say nothing."""

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a progress that nobody listens to."""
        return Progress(title, total, unit)
