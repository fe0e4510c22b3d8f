"""PAD augmentation: slots that hold one token and a PAD, as decoding with rejected drafts makes them.

A row is one conversation as token ids with labels (-100 where there is no loss). Its *prompt* is everything before
the first labelled token, so the template's ``<think>`` line belongs to it. Augmentation cuts the rest into slots of one
token (and a PAD) or two tokens; nothing else about the text changes. PADs are told apart by the returned mask, never
by id.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

IGNORED = -100
"""The label of positions without a loss."""

Tokens = NDArray[np.int64]


class Phase(Protocol):
    """What a recipe says of one phase of the augmentation (see `pipo_core.recipes`)."""

    @property
    def kind(self) -> Literal["split", "segment"]:
        """``split``, the paper's (section 4.1), or ``segment``, what decoding with rejections produces."""

    @property
    def rho_max(self) -> float:
        """Upper end of the range from which each sequence draws its ρ."""

    @property
    def all_pads(self) -> float:
        """Share of the sequences that take ρ = 1 instead (``segment`` only)."""

    @property
    def until(self) -> float:
        """Share of the training at which this phase ends."""


AnyPhase = TypeVar("AnyPhase", bound=Phase)


class PairedRow(NamedTuple):
    """One row laid out in slots; all three arrays are ``[T]`` with T even.

    Attributes:
        input_ids: token ids with PADs in second places.
        labels: the ids themselves where there is a loss, else -100; always -100 on PADs.
        pads: True on PADs.
    """

    input_ids: Tokens
    labels: Tokens
    pads: NDArray[np.bool_]


def prompt_length(labels: ArrayLike) -> int:
    """Return the index of the first labelled token, the row's length if there is none."""
    labelled = np.flatnonzero(np.asarray(labels) != IGNORED)
    return int(labelled[0]) if labelled.size else int(np.asarray(labels).size)


def pair(ids: ArrayLike, labels: ArrayLike, *, pad_id: int) -> PairedRow:
    """Return the row in slots of two tokens: PADs only where prompt or answer has an odd length."""
    row_ids, row_labels, prompt = _as_row(ids, labels)
    return _lay_out(row_ids, row_labels, prompt, _full_slots(row_ids.size - prompt), pad_id)


def split(ids: ArrayLike, labels: ArrayLike, *, pad_id: int, rho: float, rng: np.random.Generator) -> PairedRow:
    """Return the row with a share ``rho`` of the answer's pairs ``(a, b)`` split into ``(a, PAD), (b, PAD)``.

    Of the ``n`` pairs whose second token has a label, ``max(1, round(n·rho))`` are split (paper, section 4.1), so one
    is split even at ``rho`` 0. Every later pair stays where it was: the text is seen in one phase only.
    """
    row_ids, row_labels, prompt = _as_row(ids, labels)
    answer_labels = row_labels[prompt:]
    widths = _full_slots(answer_labels.size)
    candidates = np.flatnonzero(answer_labels[1::2] != IGNORED)
    if candidates.size:
        count = min(candidates.size, max(1, round(candidates.size * rho)))
        chosen = rng.choice(candidates, size=count, replace=False)
        repeats = np.ones(widths.size, dtype=np.int64)
        repeats[chosen] = 2
        widths[chosen] = 1
        widths = np.repeat(widths, repeats)
    return _lay_out(row_ids, row_labels, prompt, widths, pad_id)


def segment(ids: ArrayLike, labels: ArrayLike, *, pad_id: int, rho: float, rng: np.random.Generator) -> PairedRow:
    """Return the row with its answer cut left to right into slots: one token with probability ``rho``, else two.

    A one-token slot shifts everything after it by one token, as a rejected draft does in decoding.
    """
    row_ids, row_labels, prompt = _as_row(ids, labels)
    length = row_ids.size - prompt
    widths = np.where(rng.random(length) < rho, 1, 2)
    starts = np.cumsum(widths) - widths
    widths = widths[starts < length]
    if widths.size:
        widths[-1] -= widths.sum() - length  # the last slot may have drawn two tokens with one left
    return _lay_out(row_ids, row_labels, prompt, widths, pad_id)


def augment(ids: ArrayLike, labels: ArrayLike, *, phase: Phase, seed: int, epoch: int, pad_id: int) -> PairedRow:
    """Return the row as ``phase`` lays it out in this epoch, with ``ρ ~ U(0, phase.rho_max)``.

    Every draw comes from a generator keyed by seed, epoch and the row's own tokens: what a row looks like depends
    neither on its batch nor on the order of calls, so an interrupted run goes on with the same data.
    """
    rng = row_generator(seed, epoch, ids)
    rho = rng.uniform(0.0, phase.rho_max)
    if phase.kind == "split":
        return split(ids, labels, pad_id=pad_id, rho=rho, rng=rng)
    if rng.random() < phase.all_pads:
        rho = 1.0
    return segment(ids, labels, pad_id=pad_id, rho=rho, rng=rng)


def choose_phase(phases: Sequence[AnyPhase], progress: float) -> AnyPhase:
    """Return the phase at ``progress``, the share of the training that is over, in [0, 1]."""
    return next((phase for phase in phases if progress < phase.until), phases[-1])


def row_generator(seed: int, epoch: int, ids: ArrayLike) -> np.random.Generator:
    """Return the random generator of one row in one epoch."""
    return np.random.default_rng([seed, epoch, row_key(ids)])


def row_key(ids: ArrayLike) -> int:
    """Return a 64-bit hash of the row's token ids, the same on every machine and in every process."""
    content = np.asarray(ids, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _as_row(ids: ArrayLike, labels: ArrayLike) -> tuple[Tokens, Tokens, int]:
    row_ids, row_labels = np.asarray(ids, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if row_ids.ndim != 1 or row_ids.shape != row_labels.shape:
        raise ValueError(f"ids and labels of one row must match, got {row_ids.shape} and {row_labels.shape}")
    return row_ids, row_labels, prompt_length(row_labels)


def _full_slots(length: int) -> Tokens:
    """Return the widths of slots that hold two tokens each, the last one where the length is odd."""
    widths = np.full((length + 1) // 2, 2, dtype=np.int64)
    if length % 2:
        widths[-1] = 1
    return widths


def _lay_out(ids: Tokens, labels: Tokens, prompt: int, widths: Tokens, pad_id: int) -> PairedRow:
    """Place the answer's tokens into slots of the given widths (1 or 2) behind a prompt made even by one PAD."""
    widths = np.concatenate([_full_slots(prompt), widths])
    starts = np.cumsum(widths) - widths
    source = np.full((widths.size, 2), -1, dtype=np.int64)
    source[:, 0] = starts
    source[widths == 2, 1] = starts[widths == 2] + 1
    pads = source.ravel() < 0
    positions = np.where(pads, 0, source.ravel())
    return PairedRow(
        input_ids=np.where(pads, pad_id, ids[positions]),
        labels=np.where(pads, IGNORED, labels[positions]),
        pads=pads,
    )
