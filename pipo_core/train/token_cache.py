"""The cache of tokenized examples: where it is, how a folder of it is named, and what it holds.

A folder is named after everything that its tokens depend on: the rows, the limits, the tokenizer's files and the
number of the format. So a run with another learning rate, model size or PAD schedule tokenizes nothing. All processes
map the same files, so the machine holds them in memory once. A token takes five bytes: 12 GB for the paper's 2.4 G
tokens. A folder that no training reads can be removed at any time.

`worker.sft_examples` fills and reads the folders.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipo_core.errors import MissingInputError
from pipo_core.files import file_fingerprint, fingerprint, read_record, write_record
from pipo_core.train.layout import EXAMPLES_CACHE

CACHE_FORMAT = 2
"""Raise it by one when an unchanged file would give other tokens or labels, or when the cache's files change.

Folders of other numbers are not read. `tests/train/worker/test_cache_format.py` fails if raising it was forgotten.
"""

RECORD = "rows.json"
"""In a folder: how many examples and tokens it holds and the sizes of its files; written last."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


_PRINTS = "prints"


@dataclass(frozen=True)
class ExampleCounts:
    """What a folder of tokenized examples holds.

    Attributes:
        examples: in the folder.
        dropped: rows that are not there because they were too long.
        tokens: of all examples.
        bytes: on disk.
    """

    examples: int
    dropped: int
    tokens: int
    bytes: int


def cache_folder(given: str | None, out: Path) -> Path:
    """Return where tokenized examples go: the folder that the recipe gives, or one beside the runs of ``out``.

    Args:
        given: the recipe's ``data.cache``.
        out: the stage's folder, ``outputs/<run>/<stage>``.
    """
    return Path(given).expanduser().absolute() if given else out.absolute().parent.parent / EXAMPLES_CACHE


def examples_folder(cache: Path, file: Path, model: Path, *, max_length: int, limit: int | None) -> Path:
    """Return the folder in ``cache`` for the examples of ``file``, named after all that their tokens depend on.

    Args:
        cache: where tokenized examples go.
        file: JSON lines of ``{"messages": [...]}``; it is read, because its content counts.
        model: the checkpoint whose tokenizer is used.
        max_length: longer examples, in tokens, are left out.
        limit: read at most this many rows.
    """
    depends_on = {
        "format": CACHE_FORMAT,
        "rows": [file_fingerprint(file), max_length, limit],
        "tokenizer": [file_fingerprint(model / name) for name in _TOKENIZER_FILES if (model / name).is_file()],
    }
    return cache / fingerprint(depends_on)


def count_examples(folder: Path) -> ExampleCounts | None:
    """Return what a folder of the cache holds; None if it is absent or damaged."""
    try:
        record = read_record(folder / RECORD)
        sizes = {name: (folder / name).stat().st_size for name in record["bytes"]}
        if sizes != record["bytes"]:
            return None
        return ExampleCounts(record["rows"], record["dropped"], record["tokens"], sum(sizes.values()))
    except (MissingInputError, OSError, KeyError, TypeError, AttributeError):
        return None


def write_counts(folder: Path, names: Iterable[str], *, source: str, lengths: Sequence[int], dropped: int) -> None:
    """Write the record of a folder whose other files are complete.

    Args:
        folder: of the cache.
        names: of the files that hold the examples.
        source: the name of the data file.
        lengths: tokens of each example.
        dropped: examples that were left out.
    """
    files = {name: folder / name for name in names}
    record = {"source": source, "rows": len(lengths), "dropped": dropped, "tokens": sum(lengths)}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    prints = {name: file_fingerprint(file) for name, file in files.items()}
    write_record(folder / RECORD, {**record, "bytes": sizes, _PRINTS: prints})


def is_whole(folder: Path) -> bool:
    """Return whether a folder of the cache is there and holds what was written; all of it is read.

    Records of older versions have no hashes, so there sizes are compared alone.
    """
    if count_examples(folder) is None:
        return False
    prints = read_record(folder / RECORD).get(_PRINTS, {})
    return all(file_fingerprint(folder / name) == digest for name, digest in prints.items())
