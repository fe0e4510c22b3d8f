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


def shift_prompt(row: PairedRow, *, prompt: int, pad_id: int, rng: np.random.Generator) -> PairedRow:
    """Return the row with its prompt moved by one place: a PAD follows one of the tokens in first places.

    Every later token of the prompt changes its place in its slot; the answer begins with a slot of its own as before.
    So a prompt of even length is read as one of odd length is, and the other way round.

    Args:
        row: as `pair`, `split` or `segment` lays it out.
        prompt: tokens of the prompt, PADs not counted; a single one cannot be moved.
        pad_id: the PAD.
        rng: chooses the token.
    """
    if prompt < 2:
        return row
    before = int(rng.integers(0, prompt // 2))  # slots of two tokens in front of the PAD
    widths = np.concatenate([np.full(before, 2), [1], _full_slots(prompt - 2 * before - 1)]).astype(np.int64)
    answer = prompt + prompt % 2  # where the answer's first slot begins
    tokens = row.input_ids[:answer][~row.pads[:answer]]
    unlabelled = np.full(prompt, IGNORED, dtype=np.int64)
    moved = _lay_out(tokens, unlabelled, prompt, np.empty(0, np.int64), pad_id, widths)
    return PairedRow(*(np.concatenate([head, whole[answer:]]) for head, whole in zip(moved, row, strict=True)))


def augment(
    ids: ArrayLike,
    labels: ArrayLike,
    *,
    phase: Phase | None,
    seed: int,
    epoch: int,
    pad_id: int,
    prompt_shift: float = 0.0,
) -> PairedRow:
    """Return the row as ``phase`` lays it out in this epoch, with ``ρ ~ U(0, phase.rho_max)``.

    A share ``prompt_shift`` of the rows also has its prompt moved by one place (`shift_prompt`).

    Every draw comes from a generator keyed by seed, epoch and the row's own tokens: what a row looks like depends
    neither on its batch nor on the order of calls, so an interrupted run goes on with the same data.
    """
    row = _with_pads(ids, labels, phase, row_generator(seed, epoch, ids), pad_id)
    prompt = prompt_length(labels)
    # A generator of its own, so that shifts change nothing of the PADs in answers.
    rng = np.random.default_rng([seed, epoch, row_key(ids), 1])
    if prompt_shift > 0 and rng.random() < prompt_shift:
        return shift_prompt(row, prompt=prompt, pad_id=pad_id, rng=rng)
    return row


def _with_pads(
    ids: ArrayLike, labels: ArrayLike, phase: Phase | None, rng: np.random.Generator, pad_id: int
) -> PairedRow:
    """Return the row with the PADs in its answer that a phase asks for."""
    if phase is None:
        return pair(ids, labels, pad_id=pad_id)
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


def _lay_out(
    ids: Tokens, labels: Tokens, prompt: int, widths: Tokens, pad_id: int, prompt_widths: Tokens | None = None
) -> PairedRow:
    """Place the answer's tokens into slots of the given widths (1 or 2) behind a prompt made even by one PAD."""
    widths = np.concatenate([_full_slots(prompt) if prompt_widths is None else prompt_widths, widths])
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
