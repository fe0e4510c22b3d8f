"""What a checkpoint's training set is made of, from which a draft vocabulary is taken: ``draft_vocab.json``."""

from pathlib import Path
from typing import Any, NamedTuple

from pipo_core.errors import CheckpointError
from pipo_core.files import read_json, write_json

DRAFT_VOCAB = "draft_vocab.json"


class FrequentTokens(NamedTuple):
    """What a training set is made of.

    Attributes:
        ids: those that it has, most frequent first.
        counts: how often it has each.
    """

    ids: list[int]
    counts: list[int]

    def share_beyond(self, size: int) -> float:
        """Return the share of the set's tokens that are none of the ``size`` most frequent ids."""
        return sum(self.counts[size:]) / sum(self.counts)


def write_draft_vocab(folder: Path, frequent: FrequentTokens) -> None:
    """Record in a checkpoint or adapter what its training set is made of."""
    write_json(folder / DRAFT_VOCAB, frequent._asdict())


def read_draft_vocab(folder: Path) -> FrequentTokens:
    """Return what `write_draft_vocab` recorded.

    Raises:
        CheckpointError: if there is no such record, or it is damaged.
    """
    file = folder / DRAFT_VOCAB
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {DRAFT_VOCAB}, the most frequent tokens of its training set",
            hint="pipo train writes it and pipo merge keeps it; engine.draft_vocab=null takes the full vocabulary",
        )
    raw = read_json(file)
    ids, counts = (_whole_numbers(file, raw, name, least) for name, least in (("ids", 0), ("counts", 1)))
    if not ids or len(ids) != len(counts):
        raise CheckpointError(f"{file} must have as many counts as ids, and one at least")
    return FrequentTokens(ids, counts)


def _whole_numbers(file: Path, raw: Any, name: str, least: int) -> list[int]:
    values = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(values, list) or not all(type(value) is int and value >= least for value in values):
        raise CheckpointError(f'{file} holds no list of whole numbers from {least} on under "{name}"')
    return values
