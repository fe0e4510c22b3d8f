"""Progress and messages on standard error: a live bar at a terminal, plain lines everywhere else."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from pipo_core.hub.sizes import size_text
from pipo_core.reporting import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


def open_reporter(stream: TextIO | None = None) -> Reporter:
    """Return the reporter that suits `stream` (default: standard error)."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        return PlainReporter(stream)
    from rich.console import Console

    return TerminalReporter(Console(file=stream))


def duration(seconds: float) -> str:
    """Return `45s`, `3m20s` or `2h05m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def figures_text(figures: dict[str, float]) -> str:
    """Return `loss 1.234  kept 0.91`."""
    return "  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items())


def _number(value: float, digits: int = 4) -> str:
    """Return `0.01235`, `12.35` or `12,346`: an exponent is for small numbers only."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


class Pace:
    """Rate and time left, from the units done by this process: a resumed job starts in the middle."""

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Count towards `total` units (None: unknown)."""
        self.total = total
        self.done = 0
        self._first = 0
        self._stood = False
        self._clock = clock
        self._began = clock()

    def stand_at(self, done: int) -> None:
        """Set the units done; what the first call finds done, where nothing was, was done before this process."""
        if not self._stood and self.done == 0:
            self._first = done
            self._began = self._clock()
        self._stood = True
        self.done = done

    def rate(self) -> float | None:
        """Return units a second, or None before the first."""
        seconds = self._clock() - self._began
        fresh = self.done - self._first
        return fresh / seconds if fresh > 0 and seconds > 0 else None

    def text(self, unit: str) -> str:
        """Return `12/40 steps  3.1 steps/s  9s left`; `unit` is the word for one of them. Bytes: `1.2 GB of 9.3 GB`."""
        rate = self.rate()
        if unit == "byte":
            parts = [size_text(self.done) + (f" of {size_text(self.total)}" if self.total is not None else "")]
            pace = f"{size_text(rate)}/s" if rate is not None else ""
        else:
            parts = [f"{self.done:,}/{self.total:,} {unit}s" if self.total is not None else f"{self.done:,} {unit}s"]
            pace = "" if rate is None else f"{_number(rate, 3)} {unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}"
        if rate is not None:
            parts.append(pace)
            if self.total is not None and self.done < self.total:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        return "  ".join(parts)


class PlainProgress:
    """A line at most every ten seconds, and one at the end unless it would say the same again."""

    EVERY_SECONDS = 10.0

    def __init__(
        self,
        write: Callable[[str], None],
        title: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write lines about `title` through `write`."""
        self._write, self._title, self._unit, self._clock = write, title, unit, clock
        self._pace = Pace(total, clock)
        self._figures: dict[str, float] = {}
        self._last = clock()
        self._written: tuple[int, dict[str, float]] | None = None

    def __enter__(self) -> Self:
        """Start the clock."""
        self._last = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Write the last line."""
        if self._written != (self._pace.done, self._figures):
            self._line()

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units."""
        self._pace.done += n
        self._show(figures)

    def update(self, done: int, **figures: float) -> None:
        """Set the units done; what the first call finds done was not done now and does not count as pace."""
        self._pace.stand_at(done)
        self._show(figures)

    def _show(self, figures: dict[str, float]) -> None:
        self._figures.update(figures)
        if self._clock() - self._last >= self.EVERY_SECONDS:
            self._line()

    def _line(self) -> None:
        self._last = self._clock()
        self._written = (self._pace.done, dict(self._figures))
        figures = figures_text(self._figures)
        self._write(f"{self._title}: {self._pace.text(self._unit)}" + (f"  {figures}" if figures else ""))


class PlainReporter:
    """Lines on a stream that is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream

    def info(self, msg: str) -> None:
        """Write the line."""
        self._write(msg)

    def warn(self, msg: str) -> None:
        """Write the line, marked."""
        self._write(f"warning: {msg}")

    def progress(self, title: str, total: int | None, unit: str = "item") -> PlainProgress:
        """Return progress in lines."""
        return PlainProgress(self._write, title, total, unit)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class TerminalProgress:
    """A live bar with rate, time left and figures."""

    def __init__(self, console: "Console", title: str, total: int | None, unit: str) -> None:
        """Draw on `console`."""
        from rich.progress import BarColumn, Progress, TextColumn

        self._unit = unit
        self._pace = Pace(total)
        self._figures: dict[str, float] = {}
        self._live: RichProgress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console,
        )
        self._task: TaskID = self._live.add_task(title, total=total, pace=self._pace.text(unit), figures="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the bar as it is and give the line back."""
        self._live.stop()

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units."""
        self._pace.done += n
        self._show(figures)

    def update(self, done: int, **figures: float) -> None:
        """Set the units done; what the first call finds done was not done now and does not count as pace."""
        self._pace.stand_at(done)
        self._show(figures)

    def _show(self, figures: dict[str, float]) -> None:
        self._figures.update(figures)
        self._live.update(
            self._task,
            completed=self._pace.done,
            pace=self._pace.text(self._unit),
            figures=figures_text(self._figures),
        )


class TerminalReporter:
    """Lines and bars on a terminal, through rich (which honours NO_COLOR)."""

    def __init__(self, console: "Console") -> None:
        """Write to `console`."""
        self._console = console

    def info(self, msg: str) -> None:
        """Write the line."""
        self._console.print(msg, markup=False, highlight=False)

    def warn(self, msg: str) -> None:
        """Write the line, marked and coloured."""
        self._console.print(f"warning: {msg}", style="yellow", markup=False, highlight=False)

    def progress(self, title: str, total: int | None, unit: str = "item") -> TerminalProgress:
        """Return a live bar."""
        return TerminalProgress(self._console, title, total, unit)
