"""What a bench has measured so far: on the disk after every row, in a file that says that it is unfinished.

The last table of a bench may fail, or be interrupted, hours after the first one was measured. `results.json` is there
only when all of them are: nobody who reads it needs to ask whether it is whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipo_core.errors import Interrupted
from pipo_core.files import write_json
from pipo_core.reporting import Reporter

RESULTS = "results.json"
UNFINISHED = "unfinished.json"
UNFINISHED_KIND = "unfinished bench"
"""In place of the kind, so that no reader takes the file for a bench's results."""

_ANEW = "the same command measures anew"

RAW = {
    "lengths": "raw",
    "throughput": "raw_throughput",
    "users": "raw_users",
    "equal_memory": "raw_equal_memory",
}
"""The key of the single trials by the key of their table; training passes stand in their rows."""


class GrowingResults:
    """The results of a bench, a row longer with each `add`.

    Attributes:
        results: what stands above the tables, and the rows so far; without the single trials.
        begun: whether there is a row.
    """

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        """Begin without rows.

        Args:
            out: the stage's folder.
            about: what stands above the tables; `equal_memory` with an empty list ``measured``, or None.
        """
        tables: dict[str, list[Any]] = {table: [] for table in (*RAW, "training") if table not in about}
        self.results: dict[str, Any] = {**about, **tables}
        self.begun = False
        self._out = out
        self._raw: dict[str, list[Mapping[str, Any]]] = {key: [] for key in RAW.values()}

    def add(self, table: str, row: Mapping[str, Any], trials: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add a row to a table, its trials to theirs, and write all of it.

        Raises:
            MachineError: if the disk is full.
        """
        rows = self.results[table]
        (rows["measured"] if table == "equal_memory" else rows).append(row)
        if table in RAW:
            self._raw[RAW[table]] += trials
        write_json(self._out / UNFINISHED, {**self.results, **self._raw, "kind": UNFINISHED_KIND})
        self.begun = True

    def finish(self) -> None:
        """Write `results.json` and remove the unfinished file.

        Raises:
            MachineError: if the disk is full.
        """
        write_json(self._out / RESULTS, {**self.results, **self._raw})
        (self._out / UNFINISHED).unlink(missing_ok=True)


@contextmanager
def growing_results(out: Path, about: Mapping[str, Any], reporter: Reporter) -> Iterator[GrowingResults]:
    """Yield results to add rows to; they are finished at the end of the block, and told of if an error leaves it.

    Args:
        out: the stage's folder.
        about: what stands above the tables.
        reporter: is told where the rows of a bench are that does not end.

    Raises:
        MachineError: if the disk is full.
        Interrupted: if the user stopped the bench after its first row.
    """
    found = GrowingResults(out, about)
    kept = f"what was measured is in {out / UNFINISHED}"
    try:
        yield found
        found.finish()
    except KeyboardInterrupt as error:
        if not found.begun:
            raise
        raise Interrupted(kept, hint=_ANEW) from error
    except BaseException:
        if found.begun:
            reporter.warn(f"unfinished: {kept}; {_ANEW}")
        raise
