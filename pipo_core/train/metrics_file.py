"""The file of a training's figures, ``metrics.jsonl``: one row for each row of the log, also across interruptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.files import append_jsonl, encode_row, read_log, write_atomic
from pipo_core.train.checkpoints import logged
from pipo_core.train.events import figures_of
from pipo_core.train.layout import CHECKPOINTS, METRICS


class MetricsFile:
    """Rows of figures on disk.

    Attributes:
        latest: the last value of each figure that is a number.
    """

    def __init__(self, out: Path) -> None:
        """Use the file of a stage; it need not be there yet.

        Args:
            out: the stage's folder.
        """
        self._file = out / METRICS
        self._checkpoints = out / CHECKPOINTS
        self.latest: dict[str, float] = {}

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows but damaged ones, which `settle` takes from the checkpoint."""
        return read_log(self._file)[0] if self._file.is_file() else []

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        append_jsonl(self._file, [row])
        self._note(row)

    def settle(self, step: int) -> str | None:
        """Make the file hold exactly the rows up to ``step``, the step of a checkpoint.

        A killed run leaves rows of later steps, which will be written again. It may also lack earlier rows, which the
        checkpoint holds.

        Returns:
            What was wrong with the file, whose rows are then those of the checkpoint; None if nothing was.
        """
        rows, damaged = read_log(self._file) if self._file.is_file() else ([], [])
        in_checkpoint = [figures_of(row) for row in logged(self._checkpoints, step)]
        known = [*({"step": row["step"], **row} for row in in_checkpoint if row is not None), *rows]
        unique = {(row["step"], "eval_loss" in row): row for row in known if row["step"] <= step}
        settled = [unique[key] for key in sorted(unique)]
        if settled != rows or damaged:
            write_atomic(self._file, b"".join(encode_row(row) for row in settled))
        for row in settled:
            self._note(row)
        if damaged:
            return f"is damaged at line {', '.join(map(str, damaged[:5]))}"
        lacking = len(unique.keys() - {(row["step"], "eval_loss" in row) for row in rows})
        if not lacking:
            return None
        return f"lacks {lacking} of {len(settled)} rows" if rows else "is gone"

    def _note(self, row: Mapping[str, Any]) -> None:
        figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
        self.latest.update({key: value for key, value in figures.items() if key not in ("step", "epoch")})
