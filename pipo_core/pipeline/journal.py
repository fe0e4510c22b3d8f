"""A stage's journal on disk: `log.txt` for people, `events.jsonl` for machines.

`JournalReporter` passes everything on to the caller's reporter and writes it down as well.
"""

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipo_core.files import append_jsonl
from pipo_core.reporting import Progress, Reporter

PROGRESS_EVERY_SECONDS = 5.0


def now() -> str:
    """Return the present time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class JournalReporter:
    """A Reporter that also writes into a stage folder."""

    def __init__(self, inner: Reporter, folder: Path) -> None:
        """Pass on to `inner`; write into `folder`, which exists."""
        self._inner = inner
        self._folder = folder

    def info(self, msg: str) -> None:
        """Pass on and write down."""
        self._inner.info(msg)
        self.note("info", message=msg)

    def warn(self, msg: str) -> None:
        """Pass on and write down."""
        self._inner.warn(msg)
        self.note("warn", message=msg)

    def progress(self, title: str, total: int | None, unit: str = "item") -> "JournalProgress":
        """Return the caller's progress bar, whose standing is also noted every few seconds."""
        return JournalProgress(self._inner.progress(title, total, unit), self, title, total, unit)

    def note(self, event: str, **fields: Any) -> None:
        """Write one event to both files without showing it."""
        append_jsonl(self._folder / "events.jsonl", [{"time": now(), "event": event, **fields}])
        self.log(event, **fields)

    def log(self, event: str, **fields: Any) -> None:
        """Write one event to `log.txt` only."""
        words = " ".join(str(v) if k == "message" else f"{k}={v}" for k, v in fields.items())
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{now()} {event}: {words}\n")


class JournalProgress:
    """A progress bar that notes where it stands at most every `PROGRESS_EVERY_SECONDS`, and at its end."""

    def __init__(self, inner: Progress, journal: JournalReporter, title: str, total: int | None, unit: str) -> None:
        """Pass on to `inner`; note where it stands in `journal`."""
        self._inner = inner
        self._journal = journal
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._figures: dict[str, float | str] = {}
        self._noted_at = time.monotonic()
        self._unnoted = False

    def __enter__(self) -> Self:
        """Start the caller's bar."""
        self._inner = self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the caller's bar; a bar that moved notes where it ended."""
        if self._unnoted:
            self._note()
        self._inner.__exit__(kind, error, trace)

    def advance(self, n: int = 1, **figures: float) -> None:
        """Move on by `n` units."""
        self._inner.advance(n, **figures)
        self._moved(self._done + n, figures)

    def update(self, done: int, **figures: float) -> None:
        """Stand at `done` units."""
        self._inner.update(done, **figures)
        self._moved(done, figures)

    def _moved(self, done: int, figures: dict[str, float]) -> None:
        self._done = done
        # JSON has no NaN; a loss that is one belongs in the log all the same.
        self._figures.update({name: float(v) if math.isfinite(v) else str(v) for name, v in figures.items()})
        self._unnoted = True
        if time.monotonic() - self._noted_at >= PROGRESS_EVERY_SECONDS:
            self._note()

    def _note(self) -> None:
        self._noted_at = time.monotonic()
        self._unnoted = False
        self._journal.note(
            "progress",
            title=self._title,
            done=self._done,
            total=self._total,
            unit=self._unit,
            figures=dict(self._figures),
        )
