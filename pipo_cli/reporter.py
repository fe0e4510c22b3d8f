"""Progress and messages on standard error: a live bar at a terminal, plain lines everywhere else."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

from pipo_core.hub.sizes import size_text
from pipo_core.reporting import Progress, ProgressEvent, Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


def open_reporter(stream: TextIO | None = None) -> Reporter:
    """Return a reporter for a stream (default: standard error): bars on a terminal, lines elsewhere."""
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


def figures_text(figures: Mapping[str, float]) -> str:
    """Return `loss 1.234  kept 0.91`."""
    return "  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items())


def fitting(figures: Mapping[str, float], room: int) -> str:
    """Return the text of the first figures, as many as fit into ``room`` characters."""
    shown = dict(figures)
    while shown and len(figures_text(shown)) > room:
        shown.popitem()
    return figures_text(shown)


def pace_text(event: ProgressEvent) -> str:
    """Return `12/40 steps  3.1 steps/s  9s left`, or `1.2 GB of 9.3 GB  …` if the unit is bytes."""
    done, total, unit, rate = event.done, event.total, event.unit, event.rate
    if unit == "byte":
        parts = [size_text(done) + (f" of {size_text(total)}" if total is not None else "")]
        pace = f"{size_text(rate)}/s" if rate is not None else ""
    else:
        parts = [f"{done:,}/{total:,} {unit}s" if total is not None else f"{done:,} {unit}s"]
        pace = "" if rate is None else f"{_number(rate, 3)} {unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}"
    if rate is not None:
        parts.append(pace)
        if total is not None and done < total:
            parts.append(f"{duration((total - done) / rate)} left")
    return "  ".join(parts)


def _number(value: float, digits: int = 4) -> str:
    """Return `0.01235`, `12.35` or `12,346`: only small numbers get an exponent."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


_WIDE = 100
"""Characters from which on a terminal has room for a long bar."""


class PlainLines:
    """A listener that writes a line at most every ten seconds, and at the end if there is something new."""

    EVERY_SECONDS = 10.0

    def __init__(self, write: Callable[[str], None]) -> None:
        """Write lines through `write`."""
        self._write = write
        self._last = 0.0
        self._written: tuple[int, Mapping[str, float]] | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Write a line if enough time has passed, or at the end."""
        news = (event.done, event.figures)
        if event.phase == "begin":
            self._last = event.time
        elif news != self._written if event.phase == "end" else event.time - self._last >= self.EVERY_SECONDS:
            self._last, self._written = event.time, news
            figures = figures_text(event.figures)
            self._write(f"{event.title}: {pace_text(event)}" + (f"  {figures}" if figures else ""))


class PlainReporter:
    """Writes lines to a stream that is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream

    def info(self, msg: str) -> None:
        """Write the line."""
        self._write(msg)

    def warn(self, msg: str) -> None:
        """Write the line, marked as a warning."""
        self._write(f"warning: {msg}")

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a progress that is shown in lines."""
        return Progress(title, total, unit, PlainLines(self._write))

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Write a line at once."""
        self._write(f"{what} …")
        return nullcontext()

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class TerminalBar:
    """A listener that draws a live bar with rate, time left and figures."""

    def __init__(self, console: "Console") -> None:
        """Draw on `console`."""
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar_width = 24 if console.width >= _WIDE else 10
        self._width = console.width
        self._live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=self._bar_width),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console,
        )
        self._task: TaskID | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Start the bar at the first event, move it, or end it."""
        from rich.cells import cell_len

        pace = pace_text(event)
        # One cell lies between columns. Figures that do not fit are left out: title, bar and time left come first.
        room = self._width - cell_len(event.title) - self._bar_width - cell_len(pace) - 3
        figures = fitting(event.figures, room)
        if self._task is None:
            self._task = self._live.add_task(event.title, total=event.total, pace=pace, figures=figures)
            self._live.start()
        elif event.phase == "move":
            self._live.update(self._task, completed=event.done, pace=pace, figures=figures)
        else:
            self._live.stop()


class TerminalReporter:
    """Writes lines and bars to a terminal, through rich (which honours NO_COLOR)."""

    def __init__(self, console: "Console") -> None:
        """Write to `console`."""
        self._console = console

    def info(self, msg: str) -> None:
        """Write the line."""
        self._console.print(msg, markup=False, highlight=False)

    def warn(self, msg: str) -> None:
        """Write the line, marked as a warning and coloured."""
        self._console.print(f"warning: {msg}", style="yellow", markup=False, highlight=False)

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return a progress that is shown as a live bar."""
        return Progress(title, total, unit, TerminalBar(self._console))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner."""
        from rich.text import Text

        with self._console.status(Text(f"{what} …")):
            yield
