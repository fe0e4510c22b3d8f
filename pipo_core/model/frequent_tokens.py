"""The token counts of a checkpoint's training set, from which a draft vocabulary is taken: ``draft_vocab.json``."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipo_core.errors import CheckpointError, UsageError
from pipo_core.files import read_json, write_json

DRAFT_VOCAB = "draft_vocab.json"


class FrequentTokens(NamedTuple):
    """How often a training set holds each token that has a label.

    Attributes:
        ids: token ids that occur, most frequent first.
        counts: occurrences of each.
        gate: the draft vocabulary that the gate learned to judge drafts from; None for all tokens.
    """

    ids: list[int]
    counts: list[int]
    gate: int | None = None

    def share_beyond(self, size: int) -> float:
        """Return the share of the occurrences, in [0, 1], that the ``size`` most frequent ids do not cover."""
        return sum(self.counts[size:]) / sum(self.counts)


def check_draft_size(size: int, ends: frozenset[int], vocabulary: int) -> None:
    """Check that a draft vocabulary of so many ids can be taken from a model's.

    Args:
        size: how many ids are asked for.
        ends: ids that end a text, which are always among them.
        vocabulary: how many ids the model has.

    Raises:
        UsageError: if not even the ends find room, or the model has fewer ids.
    """
    if size < max(len(ends), 1):
        raise UsageError(f"a draft vocabulary of {size} has no room for the {len(ends)} ids that end a text")
    if size > vocabulary:
        raise UsageError(
            f"a draft vocabulary of {size} is larger than the model's, which has {vocabulary} ids",
            hint="draft_vocab: null takes them all",
        )


def draft_ids(size: int, by_frequency: Iterable[int], ends: frozenset[int], vocabulary: int) -> list[int]:
    """Return the ids of a draft vocabulary, ascending: those that end a text, then the most frequent.

    Args:
        size: how many; there are fewer where fewer are given.
        by_frequency: ids, most frequent first.
        ends: ids that end a text.
        vocabulary: how many ids the model has.

    Raises:
        UsageError: for a size that `check_draft_size` refuses, or if an id is not in the model's vocabulary.
    """
    check_draft_size(size, ends, vocabulary)
    others = (token for token in by_frequency if token not in ends)
    chosen = sorted({*ends, *islice(others, size - len(ends))})
    if chosen and not 0 <= chosen[0] <= chosen[-1] < vocabulary:
        raise UsageError(f"the draft vocabulary has ids outside the model's {vocabulary}")
    return chosen


def write_draft_vocab(folder: Path, frequent: FrequentTokens) -> None:
    """Write the counts into the folder of a checkpoint or an adapter."""
    write_json(folder / DRAFT_VOCAB, frequent._asdict())


def read_draft_vocab(folder: Path) -> FrequentTokens:
    """Return the counts that `write_draft_vocab` wrote.

    Args:
        folder: of a checkpoint or an adapter.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    file = folder / DRAFT_VOCAB
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {DRAFT_VOCAB}, the most frequent tokens of its training set",
            hint="pipo train writes it and pipo merge keeps it; draft_vocab: null takes the full vocabulary",
        )
    raw = read_json(file)
    ids, counts = (_whole_numbers(file, raw, name, minimum) for name, minimum in (("ids", 0), ("counts", 1)))
    if not ids or len(ids) != len(counts):
        raise CheckpointError(f"{file} must have as many counts as ids, and one at least")
    gate = raw.get("gate")
    if gate is not None and (type(gate) is not int or gate < 1):
        raise CheckpointError(f'{file} must hold null or a whole number from 1 on under "gate"')
    return FrequentTokens(ids, counts, gate)


def _whole_numbers(file: Path, raw: Any, name: str, minimum: int) -> list[int]:
    """Return the list of integers under a key of a JSON object.

    Raises:
        CheckpointError: if it is not a list of integers from ``minimum`` on.
    """
    values = raw.get(name) if isinstance(raw, dict) else None
    if not isinstance(values, list) or not all(type(value) is int and value >= minimum for value in values):
        raise CheckpointError(f'{file} holds no list of whole numbers from {minimum} on under "{name}"')
    return values
