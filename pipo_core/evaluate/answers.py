"""The answers of one arm on disk: a JSON-lines file that only grows, and a card: to what they are answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipo_core.errors import MissingInputError
from pipo_core.files import append_jsonl, fingerprint, read_json, read_jsonl, write_json
from pipo_core.reporting import Reporter


class AnswerFile:
    """Appends answers as they complete and knows those that are there; a context manager.

    `identity` (arm, checkpoint content, problems, sampling, limits) says what makes two answers comparable. A
    file of another identity is never added to: it is set aside under a name with its fingerprint, and that is
    reported.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], reporter: Reporter) -> None:
        """Name the file and what its answers must belong to; nothing is touched before entering."""
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """The answers on disk by id."""
        self._identity = dict(identity)
        self._reporter = reporter

    def __enter__(self) -> Self:
        """Read what is there. Raises MissingInputError where a line in the middle of the file is broken."""
        self._set_foreign_aside()
        write_json(self._card, {"fingerprint": fingerprint(self._identity), **self._identity})
        append_jsonl(self.path, [])  # cuts off what a killed writer left half-written
        self.rows = {row["id"]: row for row in read_jsonl(self.path)}
        self._file = self.path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Add one answer; a killed process loses nothing that was appended."""
        text = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        self.rows[row["id"]] = row

    @property
    def _card(self) -> Path:
        return self.path.with_suffix(".json")

    def _set_foreign_aside(self) -> None:
        if not self.path.exists():
            return
        try:
            card = read_json(self._card)
        except MissingInputError:
            card = {}
        if card.get("fingerprint") == fingerprint(self._identity):
            return
        changed = [key for key, value in self._identity.items() if card.get(key) != value]
        aside = self.path.with_suffix(f".{card.get('fingerprint', 'unknown')}.jsonl")
        self.path.replace(aside)
        self._reporter.warn(
            f"{self.path.name} holds answers to something else (different: {', '.join(changed)}); "
            f"kept as {aside.name}, generating anew"
        )
