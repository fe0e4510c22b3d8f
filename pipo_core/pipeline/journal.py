"""A stage's journal on disk: `log.txt` for people, `events.jsonl` for machines.

`JournalReporter` passes everything on to the caller's reporter and writes it down as well.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipo_core.files import append_jsonl
from pipo_core.reporting import Progress, ProgressEvent, Reporter

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

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        """Return the caller's progress, which is also noted every few seconds."""
        progress = self._inner.progress(title, total, unit)
        progress.listen(ProgressNotes(self))
        return progress

    def note(self, event: str, **fields: Any) -> None:
        """Write one event to both files without showing it."""
        append_jsonl(self._folder / "events.jsonl", [{"time": now(), "event": event, **fields}])
        self.log(event, **fields)

    def log(self, event: str, **fields: Any) -> None:
        """Write one event to `log.txt` only."""
        words = " ".join(str(v) if k == "message" else f"{k}={v}" for k, v in fields.items())
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{now()} {event}: {words}\n")


class ProgressNotes:
    """Listens to a progress: notes it at most every `PROGRESS_EVERY_SECONDS`, and at its end if it moved since."""

    def __init__(self, journal: JournalReporter) -> None:
        """Write into `journal`."""
        self._journal = journal
        self._noted_at = 0.0
        self._unnoted = False

    def __call__(self, event: ProgressEvent) -> None:
        """Note the event if it is time for a note."""
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
                # JSON has no NaN; a loss that is one belongs in the log all the same.
                figures={name: float(v) if math.isfinite(v) else str(v) for name, v in event.figures.items()},
            )
