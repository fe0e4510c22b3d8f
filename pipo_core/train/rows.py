"""Training rows: checked before anything starts, tokenized once for all runs, read from disk by every process.

Tokenized rows lie in a folder that runs share, under a name made of everything that they depend on: the rows, the
tokenizer, the chat format and the code that applies it. So a run with another learning rate, model size or PAD schedule
tokenizes nothing, and a change of the chat format never meets old tokens. Every process maps the same files, so the
machine holds them in memory once. They take five bytes a token: 12 GB for the paper's 2.4 G tokens. A folder
that no training reads can be removed at any time.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError
from pipo_core.files import FolderLock, file_fingerprint, fingerprint, lock_of, new_folder, read_object, write_json
from pipo_core.train.layout import ROWS

if TYPE_CHECKING:
    from pipo_core.model.frequent_tokens import FrequentTokens

THINK = "<think>\n"
"""How an answer begins; the prompt ends with it, so it is never learned (algorithm, section 5)."""

Encode = Callable[[dict[str, Any]], Mapping[str, Any]]

_ROLES = ("system", "user", "assistant", "tool")
_PARALLEL_BYTES = 8 << 20
_COUNTED = 1 << 24  # tokens counted at once
_RECORD, _ENDS, _IDS, _LABELLED = "rows.json", "ends.npy", "ids.bin", "labelled.bin"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_CHAT_FORMAT = (
    "chat/control_tokens.py",
    "chat/layout.py",
    "train/arguments.py",
    "train/rows.py",
    "train/swift_plugin.py",
    "train/template.py",
)


class Row(NamedTuple):
    """Token ids and labels of one conversation, ``[T]`` each; the label is -100 where there is no loss.

    ``learn`` is False for rows of a validation set, which are never augmented.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    learn: bool


def check_rows(file: Path, limit: int | None = None, *, answered: bool = True) -> int:
    """Return how many rows of ``{"messages": [...]}`` the JSON-lines file holds, at most ``limit``.

    ``answered``: each must end with an answer; else a user turn is enough.

    Raises:
        MissingInputError: for the first line that is no such row, naming file and line, or if there are no rows.
    """
    count = 0
    for number, line in read_lines(file, limit):
        problem = _problem(line, answered=answered)
        if problem is not None:
            raise MissingInputError(f"{file}:{number}: {problem}", hint=_ROW_HINT)
        count += 1
    if not count:
        raise MissingInputError(f"{file}: no rows to train on", hint=_ROW_HINT)
    return count


_ROW_HINT = (
    'a row looks like {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "<think>\\n…"}]}'
)


def read_lines(file: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and contents of a file's lines that are not blank, at most ``limit``."""
    try:
        with file.open("rb") as opened:
            filled = ((number, line) for number, line in enumerate(opened, start=1) if line.strip())
            yield from islice(filled, limit)
    except OSError as error:
        raise MissingInputError(f"{file}: cannot be read: {error.strerror}") from error


def _problem(line: bytes, *, answered: bool) -> str | None:
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
    if not answered:
        return None
    if messages[-1]["role"] != "assistant":
        return "the last turn is not the assistant's"
    if not messages[-1]["content"].removeprefix(THINK).strip():
        return "the answer is empty"
    return None


@dataclass(frozen=True)
class RowCounts:
    """What a folder of tokenized rows holds: rows, rows that were too long and are not there, tokens, bytes on disk."""

    rows: int
    dropped: int
    tokens: int
    bytes: int


def cache_folder(given: str | None, out: Path) -> Path:
    """Return where tokenized rows go: the folder that the recipe gives, or one beside the runs of ``out``.

    Args:
        given: the recipe's ``data.cache``.
        out: the stage's folder, ``outputs/<run>/<stage>``.
    """
    return Path(given).expanduser().absolute() if given else out.absolute().parent.parent / ROWS


def rows_folder(cache: Path, file: Path, model: Path, *, max_length: int, limit: int | None) -> Path:
    """Return the folder in ``cache`` that is named after all that the tokens of ``file`` depend on.

    Args:
        cache: where tokenized rows go.
        file: JSON lines of ``{"messages": [...]}``; it is read, for its content counts.
        model: the checkpoint whose tokenizer is used.
        max_length: longer rows, in tokens, are left out.
        limit: read at most this many rows.
    """
    package = Path(__file__).parents[1]
    made_of = {
        "rows": [file_fingerprint(file), max_length, limit],
        "tokenizer": [file_fingerprint(model / name) for name in _TOKENIZER if (model / name).is_file()],
        "chat format": [file_fingerprint(package / name) for name in _CHAT_FORMAT],
        "libraries": [version("ms-swift"), version("tokenizers")],
    }
    return cache / fingerprint(made_of)


def count_rows(folder: Path) -> RowCounts | None:
    """Return what `encode_rows` wrote into ``folder``; None if it is absent, or not as it was written."""
    try:
        record = read_object(folder / _RECORD)
        sizes = {name: (folder / name).stat().st_size for name in record["bytes"]}
        if sizes != record["bytes"]:
            return None
        return RowCounts(record["rows"], record["dropped"], record["tokens"], sum(sizes.values()))
    except (MissingInputError, OSError, KeyError, TypeError, AttributeError):
        return None


class EncodedRows:
    """The rows of one file as token ids: a map-style dataset of `Row` over files that all processes share."""

    def __init__(self, folder: Path, *, learn: bool) -> None:
        """Open what `encode_rows` wrote into ``folder``; ``learn`` is False for a validation set."""
        self._learn = learn
        self.dropped: int = read_object(folder / _RECORD)["dropped"]
        self._ends: NDArray[np.int64] = np.load(folder / _ENDS)
        self._ids = np.memmap(folder / _IDS, dtype=np.int32, mode="r")
        self._labelled = np.memmap(folder / _LABELLED, dtype=np.bool_, mode="r")

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._ends.size

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: Literal["lengths"]) -> list[int]: ...

    def __getitem__(self, index: int | Literal["lengths"]) -> Row | list[int]:
        """Return one row, or the tokens of each: ms-swift groups rows by this column."""
        if isinstance(index, str):
            lengths: list[int] = np.diff(self._ends, prepend=0).tolist()
            return lengths
        place = slice(self._ends[index - 1] if index else 0, self._ends[index])
        ids = self._ids[place].astype(np.int64)
        return Row(ids, np.where(self._labelled[place], ids, IGNORED), self._learn)

    def learned(self) -> "FrequentTokens":
        """Return the ids that have labels, ties ascending."""
        counts = np.zeros(0, dtype=np.int64)
        for start in range(0, self._ids.size, _COUNTED):
            piece = slice(start, start + _COUNTED)
            counted = np.bincount(self._ids[piece][self._labelled[piece]], minlength=counts.size)
            counted[: counts.size] += counts
            counts = counted
        order = np.argsort(-counts, kind="stable")
        # Imported here: planning reads rows without torch.
        from pipo_core.model.frequent_tokens import FrequentTokens

        order = order[counts[order] > 0]
        return FrequentTokens(order.tolist(), counts[order].tolist())


def encode_rows(
    file: Path,
    folder: Path,
    *,
    encode: Encode,
    max_length: int,
    limit: int | None,
    progress: Callable[[int], None],
) -> None:
    """Tokenize the rows of ``file`` into ``folder`` unless they are there, whole.

    If another process is at it, wait for it: one of them tokenizes, all of them read.

    Args:
        file: JSON lines of ``{"messages": [...]}``, checked by `check_rows`.
        folder: as `rows_folder` names it; it appears whole or not at all.
        encode: one row to ``input_ids`` and ``labels`` (the chat template).
        max_length: longer rows, in tokens, are left out and counted.
        limit: read at most this many rows.
        progress: called with the number of rows done.

    Raises:
        MissingInputError: if no row is left.
    """
    if count_rows(folder) is not None:
        return
    with FolderLock(lock_of(folder), patience=math.inf):
        if count_rows(folder) is None:
            _write_rows(file, folder, encode=encode, max_length=max_length, limit=limit, progress=progress)


def _write_rows(
    file: Path,
    folder: Path,
    *,
    encode: Encode,
    max_length: int,
    limit: int | None,
    progress: Callable[[int], None],
) -> None:
    lengths: list[int] = []
    dropped = 0
    with new_folder(folder) as made:
        with (made / _IDS).open("wb") as ids_file, (made / _LABELLED).open("wb") as labelled_file:
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
        np.save(made / _ENDS, np.cumsum(lengths, dtype=np.int64))
        sizes = {name: (made / name).stat().st_size for name in (_IDS, _LABELLED, _ENDS)}
        record = {"source": file.name, "rows": len(lengths), "dropped": dropped, "tokens": sum(lengths)}
        write_json(made / _RECORD, {**record, "bytes": sizes})


def _encoded(file: Path, limit: int | None, encode: Encode) -> Iterator[tuple[list[int], list[int]]]:
    """Yield ids and labels of every row, in order; long files on all CPUs, since the tokenizer frees the GIL."""

    def one(line: bytes) -> tuple[list[int], list[int]]:
        encoded = encode({"messages": json.loads(line)["messages"]})
        return encoded["input_ids"], encoded["labels"]

    lines: Iterable[bytes] = (line for _, line in read_lines(file, limit))
    if file.stat().st_size < _PARALLEL_BYTES:
        yield from map(one, lines)
        return
    remaining = iter(lines)
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(remaining, 64 * workers)):
            yield from pool.map(one, block)
