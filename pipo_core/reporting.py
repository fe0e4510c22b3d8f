"""How a job tells what it does, without knowing who listens: a terminal, a log, a test."""

from types import TracebackType
from typing import Protocol, Self


class Progress(Protocol):
    """One bar. A context manager: leaving it ends the bar."""

    def __enter__(self) -> Self:
        """Start the bar and return it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the bar, whatever happened."""
        ...

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units as done; `figures` (name to value) are shown behind the bar."""
        ...

    def update(self, done: int, **figures: float) -> None:
        """State that `done` units are done in all (for work that starts in the middle)."""
        ...


class Reporter(Protocol):
    """What a job reports to."""

    def info(self, msg: str) -> None:
        """Say a line that the user wants to read."""
        ...

    def warn(self, msg: str) -> None:
        """Say a line that the user should act on."""
        ...

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a bar over `total` units (None: not known), each called `unit`; the caller enters it."""
        ...


class SilentProgress:
    """A bar that nobody sees."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Do nothing."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Do nothing."""

    def update(self, done: int, **figures: float) -> None:
        """Do nothing."""


class SilentReporter:
    """Says nothing: the default for use as a library and for tests."""

    def info(self, msg: str) -> None:
        """Do nothing."""

    def warn(self, msg: str) -> None:
        """Do nothing."""

    def progress(self, title: str, total: int | None, unit: str = "item") -> SilentProgress:
        """Return a bar that nobody sees."""
        return SilentProgress()
