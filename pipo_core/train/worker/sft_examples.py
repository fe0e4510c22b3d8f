"""Fine-tuning's examples: tokenized once for all runs into the cache, and read from it by every process.

Folders are named by `pipo_core.train.token_cache`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import FolderLock, lock_of, new_folder, read_record
from pipo_core.model.frequent_tokens import FrequentTokens
from pipo_core.train.rows import parse_row, read_lines
from pipo_core.train.token_cache import RECORD, is_whole, write_counts

Encode = Callable[[dict[str, Any]], Mapping[str, Any]]

_PARALLEL_BYTES = 8 << 20
"""Files from this size on are tokenized on all CPUs."""
_COUNTED_TOKENS = 1 << 24
"""Tokens that are counted at once."""
_PATIENCE_SECONDS = 4 * 3600.0
"""The paper's 2.4 G tokens take 2.3 hours on one core."""
_ENDS, _IDS, _LABELLED = "ends.npy", "ids.bin", "labelled.bin"


class Example(NamedTuple):
    """One tokenized conversation.

    Attributes:
        ids: token ids, ``[T]``.
        labels: the ids, `IGNORED` where there is no loss, ``[T]``.
        augmented: whether PADs may be inserted; False for a validation set.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    augmented: bool


class EncodedExamples:
    """The examples of one data file: a map-style dataset of `Example` over files that all processes share.

    Attributes:
        dropped: examples that are left out because they were too long.
    """

    def __init__(self, folder: Path, *, augmented: bool) -> None:
        """Open a folder of the cache.

        Args:
            folder: filled by `encode_examples`.
            augmented: whether PADs may be inserted into the examples.
        """
        self._augmented = augmented
        self.dropped: int = read_record(folder / RECORD)["dropped"]
        self._ends: NDArray[np.int64] = np.load(folder / _ENDS)
        self._ids = np.memmap(folder / _IDS, dtype=np.int32, mode="r")
        self._labelled = np.memmap(folder / _LABELLED, dtype=np.bool_, mode="r")

    def __len__(self) -> int:
        """Return how many examples there are."""
        return self._ends.size

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: Literal["lengths"]) -> list[int]: ...

    def __getitem__(self, index: int | Literal["lengths"]) -> Example | list[int]:
        """Return one example, or the token count of each: ms-swift groups examples by the column ``lengths``."""
        if isinstance(index, str):
            lengths: list[int] = np.diff(self._ends, prepend=0).tolist()
            return lengths
        span = slice(self._ends[index - 1] if index else 0, self._ends[index])
        ids = self._ids[span].astype(np.int64)
        return Example(ids, np.where(self._labelled[span], ids, IGNORED), self._augmented)

    def count_labelled_tokens(self) -> FrequentTokens:
        """Return how often each token has a label, most frequent first, ties by ascending id."""
        counts = np.zeros(0, dtype=np.int64)
        for start in range(0, self._ids.size, _COUNTED_TOKENS):
            piece = slice(start, start + _COUNTED_TOKENS)
            counted = np.bincount(self._ids[piece][self._labelled[piece]], minlength=counts.size)
            counted[: counts.size] += counts
            counts = counted
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        return FrequentTokens(order.tolist(), counts[order].tolist())


def encode_examples(
    file: Path,
    folder: Path,
    *,
    encode: Encode,
    max_length: int,
    limit: int | None,
    progress: Callable[[int], None],
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Tokenize the rows of ``file`` into ``folder`` unless it is filled already, and holds what was written.

    If another process is tokenizing the same rows, say so and wait until it is done, but not for ever.

    Args:
        file: JSON lines of ``{"messages": [...]}``, checked by `rows.check_rows`.
        folder: as `token_cache.examples_folder` names it; it appears complete or not at all.
        encode: turns a conversation whose last turn is learned into ``input_ids`` and ``labels`` (the chat template).
        max_length: longer examples, in tokens, are left out and counted.
        limit: read at most this many rows.
        progress: called with the number of rows done.
        warn: called with a sentence if the folder is damaged, or if another process has to be waited for.

    Raises:
        UsageError: if another process has not ended after hours.
        MissingInputError: for a row that the chat template does not take, naming its line, or if no example is left.
    """
    try:
        with FolderLock(lock_of(folder)):
            pass
    except UsageError:
        warn(f"another process is tokenizing {file.name} into {folder}: this one waits for it")
    with FolderLock(lock_of(folder), patience=_PATIENCE_SECONDS, about=folder):
        if is_whole(folder):
            return
        if folder.exists():
            warn(f"the tokenized rows in {folder} are damaged and are made again")
        _fill(file, folder, encode=encode, max_length=max_length, limit=limit, progress=progress)


def _fill(
    file: Path,
    folder: Path,
    *,
    encode: Encode,
    max_length: int,
    limit: int | None,
    progress: Callable[[int], None],
) -> None:
    """Write the folder of the cache: ids as int32, labelled places as bool, one after another, and their ends."""
    lengths: list[int] = []
    dropped = 0
    with new_folder(folder) as made:
        with (made / _IDS).open("wb") as ids_file, (made / _LABELLED).open("wb") as labelled_file:
            for number, examples in enumerate(_encoded(file, limit, encode), start=1):
                progress(number)
                for ids, labels in examples:
                    if len(ids) > max_length:
                        dropped += 1
                        continue
                    ids_file.write(np.asarray(ids, dtype=np.int32).tobytes())
                    labelled_file.write((np.asarray(labels) != IGNORED).tobytes())
                    lengths.append(len(ids))
        if not lengths:
            raise MissingInputError(
                f"{file}: all {dropped} examples are longer than data.max_length ({max_length} tokens)",
                hint="give a larger data.max_length",
            )
        np.save(made / _ENDS, np.cumsum(lengths, dtype=np.int64))
        write_counts(made, (_IDS, _LABELLED, _ENDS), source=file.name, lengths=lengths, dropped=dropped)


def _encoded(file: Path, limit: int | None, encode: Encode) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Yield ids and labels of each row's examples; large files on all CPUs, since the tokenizer frees the GIL."""

    def encode_line(numbered: tuple[int, bytes]) -> list[tuple[list[int], list[int]]]:
        row = parse_row(file, *numbered)
        try:
            examples = [encode({"messages": row.messages[: index + 1]}) for index in row.learned]
        except UsageError as error:
            raise MissingInputError(f"{file}:{row.line}: {error.message}", hint=error.hint) from error
        return [(example["input_ids"], example["labels"]) for example in examples]

    lines = read_lines(file, limit)
    if file.stat().st_size < _PARALLEL_BYTES:
        yield from map(encode_line, lines)
        return
    remaining = iter(lines)
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(remaining, 64 * workers)):
            yield from pool.map(encode_line, block)
