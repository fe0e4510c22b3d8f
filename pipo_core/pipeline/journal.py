"""A stage's journal on disk: `log.txt` for people, `events.jsonl` for programs."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipo_core.files import append_jsonl
from pipo_core.reporting import Progress, ProgressEvent, Reporter

PROGRESS_EVERY_SECONDS = 5.0


def now() -> str:
    """Return the current time in UTC, as ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class JournalReporter:
    """A reporter that writes every message into a stage's folder and passes it on to another reporter."""

    def __init__(self, inner: Reporter, folder: Path) -> None:
        """Make the journal of a stage.

        Args:
            inner: gets every message, too.
            folder: the stage's folder, which exists.
        """
        self._inner = inner
        self._folder = folder
        self._waiting = ExitStack()

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Pass on that something takes its time."""
        return self._inner.waiting(what)

    @contextmanager
    def waiting_until_heard(self, what: str) -> Iterator[None]:
        """Show that something takes its time until the job says anything, or the block ends."""
        with self._waiting:
            self._waiting.enter_context(self._inner.waiting(what))
            yield

    def info(self, msg: str) -> None:
        """Pass on and record a line that the user wants to read."""
        self._waiting.close()
        self._inner.info(msg)
        self.note("info", message=msg)

    def warn(self, msg: str) -> None:
        """Pass on and record a line that the user should act on."""
        self._waiting.close()
        self._inner.warn(msg)
        self.note("warn", message=msg)

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return the inner reporter's progress, which is also recorded every few seconds."""
        self._waiting.close()
        progress = self._inner.progress(title, total, unit)
        progress.listen(ProgressNotes(self))
        return progress

    def note(self, event: str, **fields: Any) -> None:
        """Record an event in both files without showing it."""
        append_jsonl(self._folder / "events.jsonl", [{"time": now(), "event": event, **fields}])
        self.log(event, **fields)

    def log(self, event: str, **fields: Any) -> None:
        """Record an event in `log.txt` only."""
        words = " ".join(str(v) if k == "message" else f"{k}={v}" for k, v in fields.items())
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{now()} {event}: {words}\n")


class ProgressNotes:
    """A listener that records a progress at most every `PROGRESS_EVERY_SECONDS`, and at its end if it has moved."""

    def __init__(self, journal: JournalReporter) -> None:
        """Record into `journal`."""
        self._journal = journal
        self._noted_at = 0.0
        self._unnoted = False

    def __call__(self, event: ProgressEvent) -> None:
        """Record the event if enough time has passed."""
        if event.phase == "begin":
            self._noted_at = event.time
        elif event.phase == "move":
            self._unnoted = True
        if self._unnoted and (event.phase == "end" or event.time - self._noted_at >= PROGRESS_EVERY_SECONDS):
            self._noted_at, self._unnoted = event.time, False
            self._journal.note(
                "progress",
                title=event.title,
                done=event.done,
                total=event.total,
                unit=event.unit,
                # JSON has no NaN, and a loss that is NaN must be in the log: it is written as text.
                figures={name: float(v) if math.isfinite(v) else str(v) for name, v in event.figures.items()},
            )
