"""Training rows: checked before anything starts, tokenized once, read from disk by every process."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError
from pipo_core.files import new_folder, read_json, write_json

THINK = "<think>\n"
"""How an answer begins; the prompt ends with it, so it is never learned (algorithm, section 5)."""

Encode = Callable[[dict[str, Any]], Mapping[str, Any]]

_ROLES = ("system", "user", "assistant", "tool")
_PARALLEL_BYTES = 8 << 20


class Row(NamedTuple):
    """Token ids and labels of one conversation, ``[T]`` each; the label is -100 where there is no loss.

    ``learn`` is False for rows of a validation set, which are never augmented.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    learn: bool


def check_rows(file: Path, limit: int | None = None) -> int:
    """Return how many rows of ``{"messages": [...]}`` the JSON-lines file holds, at most ``limit``.

    Raises:
        MissingInputError: for the first line that is no such row, naming file and line, or if there are no rows.
    """
    count = 0
    for number, line in _lines(file, limit):
        problem = _problem(line)
        if problem is not None:
            raise MissingInputError(f"{file}:{number}: {problem}", hint=_ROW_HINT)
        count += 1
    if not count:
        raise MissingInputError(f"{file}: no rows to train on", hint=_ROW_HINT)
    return count


_ROW_HINT = (
    'a row looks like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "<think>\\n…"}]}'
)


def _lines(file: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and contents of a file's lines that are not blank, at most ``limit``."""
    try:
        with file.open("rb") as opened:
            filled = ((number, line) for number, line in enumerate(opened, start=1) if line.strip())
            yield from islice(filled, limit)
    except OSError as error:
        raise MissingInputError(f"{file}: cannot be read: {error.strerror}") from error


def _problem(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return "not JSON"
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list):
        return 'no list under the key "messages"'
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"message {index} has no role out of {', '.join(_ROLES)}"
        if not isinstance(message.get("content"), str):
            return f"message {index} has no text under the key content"
    if not any(message["role"] == "user" for message in messages):
        return "no user turn"
    if messages[-1]["role"] != "assistant":
        return "the last turn is not the assistant's"
    if not messages[-1]["content"].removeprefix(THINK).strip():
        return "the answer is empty"
    return None


class EncodedRows:
    """The rows of one file as token ids: a map-style dataset of `Row` over files that all processes share."""

    def __init__(self, folder: Path, *, learn: bool) -> None:
        """Open what `encode_rows` wrote into ``folder``; ``learn`` is False for a validation set."""
        self._learn = learn
        self.dropped: int = read_json(folder / "rows.json")["dropped"]
        self._ends: NDArray[np.int64] = np.load(folder / "ends.npy")
        self._ids = np.memmap(folder / "ids.bin", dtype=np.int32, mode="r")
        self._labelled = np.memmap(folder / "labelled.bin", dtype=np.bool_, mode="r")

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._ends.size

    def __getitem__(self, index: int) -> Row:
        """Return one row."""
        place = slice(self._ends[index - 1] if index else 0, self._ends[index])
        ids = self._ids[place].astype(np.int64)
        return Row(ids, np.where(self._labelled[place], ids, IGNORED), self._learn)


def encode_rows(
    file: Path,
    folder: Path,
    *,
    encode: Encode,
    max_length: int,
    limit: int | None,
    made_from: str,
    progress: Callable[[int], None],
) -> None:
    """Tokenize the rows of ``file`` into ``folder``; do nothing if that was done with the same ``made_from``.

    Args:
        file: JSON lines of ``{"messages": [...]}``, checked by `check_rows`.
        folder: it appears whole or not at all.
        encode: one row to ``input_ids`` and ``labels`` (the chat template).
        max_length: longer rows, in tokens, are left out and counted.
        limit: read at most this many rows.
        made_from: fingerprint of everything that the result depends on.
        progress: called with the number of rows done.

    Raises:
        MissingInputError: if no row is left.
    """
    try:
        if read_json(folder / "rows.json")["made_from"] == made_from:
            return
    except (MissingInputError, KeyError, TypeError):
        pass
    lengths: list[int] = []
    dropped = 0
    with new_folder(folder) as made:
        with (made / "ids.bin").open("wb") as ids_file, (made / "labelled.bin").open("wb") as labelled_file:
            for number, (ids, labels) in enumerate(_encoded(file, limit, encode), start=1):
                progress(number)
                if len(ids) > max_length:
                    dropped += 1
                    continue
                ids_file.write(np.asarray(ids, dtype=np.int32).tobytes())
                labelled_file.write((np.asarray(labels) != IGNORED).tobytes())
                lengths.append(len(ids))
        if not lengths:
            raise MissingInputError(
                f"{file}: all {dropped} rows are longer than data.max_length ({max_length} tokens)",
                hint="give a larger data.max_length",
            )
        np.save(made / "ends.npy", np.cumsum(lengths, dtype=np.int64))
        write_json(made / "rows.json", {"made_from": made_from, "rows": len(lengths), "dropped": dropped})


def _encoded(file: Path, limit: int | None, encode: Encode) -> Iterator[tuple[list[int], list[int]]]:
    """Yield ids and labels of every row, in order; long files on all CPUs, since the tokenizer frees the GIL."""

    def one(line: bytes) -> tuple[list[int], list[int]]:
        encoded = encode({"messages": json.loads(line)["messages"]})
        return encoded["input_ids"], encoded["labels"]

    lines: Iterable[bytes] = (line for _, line in _lines(file, limit))
    if file.stat().st_size < _PARALLEL_BYTES:
        yield from map(one, lines)
        return
    remaining = iter(lines)
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(remaining, 64 * workers)):
            yield from pool.map(one, block)
