"""PAD augmentation: training examples with slots that hold one token and a PAD, as rejected drafts leave them.

An example is one conversation as token ids with labels (-100 where there is no loss). Its *prompt* is everything before
the first labelled token, so the template's ``<think>`` line belongs to it. The rest, the *answer*, is cut into slots of
two tokens, or of one token and a PAD. The text itself never changes. A mask marks the PADs, because a text can contain
the PAD's id.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

IGNORED = -100
"""The label of a token without a loss."""

Tokens = NDArray[np.int64]


class Phase(Protocol):
    """One phase of the augmentation, as a recipe states it (`pipo_core.recipes.sft`)."""

    @property
    def kind(self) -> Literal["split", "segment"]:
        """``split`` (paper, section 4.1), or ``segment``, which resembles decoding with rejected drafts."""

    @property
    def rho_max(self) -> float:
        """Upper end of the range from which each example samples its ρ."""

    @property
    def all_pads(self) -> float:
        """Share of the examples that use ρ = 1 instead (``segment`` only)."""

    @property
    def until(self) -> float:
        """Share of the training at which this phase ends."""


AnyPhase = TypeVar("AnyPhase", bound=Phase)


class PairedExample(NamedTuple):
    """One example laid out in slots; all three arrays are ``[T]`` with T even.

    Attributes:
        input_ids: token ids, with PADs at place 1 of their slots.
        labels: the ids themselves where there is a loss, else -100; always -100 on PADs.
        pads: True on PADs.
    """

    input_ids: Tokens
    labels: Tokens
    pads: NDArray[np.bool_]


def prompt_length(labels: ArrayLike) -> int:
    """Return the index of the first labelled token; the example's length if no token has a label."""
    labelled = np.flatnonzero(np.asarray(labels) != IGNORED)
    return int(labelled[0]) if labelled.size else int(np.asarray(labels).size)


def pair(ids: ArrayLike, labels: ArrayLike, *, pad_id: int) -> PairedExample:
    """Return the example in slots of two tokens, with a PAD only at the end of an odd prompt or answer.

    Raises:
        ValueError: if the lengths of ids and labels differ.
    """
    token_ids, token_labels, prompt = _as_arrays(ids, labels)
    return _lay_out(token_ids, token_labels, prompt, _full_slots(token_ids.size - prompt), pad_id)


def split(ids: ArrayLike, labels: ArrayLike, *, pad_id: int, rho: float, rng: np.random.Generator) -> PairedExample:
    """Return the example with a share ``rho`` of the answer's pairs ``(a, b)`` split into ``(a, PAD), (b, PAD)``.

    Of the ``n`` pairs whose second token has a label, ``max(1, round(n·rho))`` are split (paper, section 4.1), so one
    is split even at ``rho`` 0. All other pairs keep their two tokens: pairs always begin at even offsets of the answer.

    Raises:
        ValueError: if the lengths of ids and labels differ.
    """
    token_ids, token_labels, prompt = _as_arrays(ids, labels)
    answer_labels = token_labels[prompt:]
    widths = _full_slots(answer_labels.size)
    candidates = np.flatnonzero(answer_labels[1::2] != IGNORED)
    if candidates.size:
        count = min(candidates.size, max(1, round(candidates.size * rho)))
        chosen = rng.choice(candidates, size=count, replace=False)
        repeats = np.ones(widths.size, dtype=np.int64)
        repeats[chosen] = 2
        widths[chosen] = 1
        widths = np.repeat(widths, repeats)
    return _lay_out(token_ids, token_labels, prompt, widths, pad_id)


def segment(ids: ArrayLike, labels: ArrayLike, *, pad_id: int, rho: float, rng: np.random.Generator) -> PairedExample:
    """Return the example with its answer cut into slots of random width.

    From left to right, each slot has one token with probability ``rho``, else two. A slot of one token shifts
    everything after it by one token, as a rejected draft does in decoding.

    Raises:
        ValueError: if the lengths of ids and labels differ.
    """
    token_ids, token_labels, prompt = _as_arrays(ids, labels)
    length = token_ids.size - prompt
    widths = np.where(rng.random(length) < rho, 1, 2)
    starts = np.cumsum(widths) - widths
    widths = widths[starts < length]
    if widths.size:
        widths[-1] -= widths.sum() - length  # the last slot may have been given two tokens with only one left
    return _lay_out(token_ids, token_labels, prompt, widths, pad_id)


def shift_prompt(example: PairedExample, *, prompt: int, pad_id: int, rng: np.random.Generator) -> PairedExample:
    """Return the example with its prompt shifted by one place: a PAD follows one of the tokens at place 0.

    Every later token of the prompt changes its place. The answer still begins with a new slot. So the model reads a
    prompt of even length as if it were odd, and the other way round.

    Args:
        example: as `pair`, `split` or `segment` lays it out.
        prompt: number of the prompt's tokens, PADs not counted; a prompt of one token stays as it is.
        pad_id: id of the PAD.
        rng: chooses the token that the PAD follows.
    """
    if prompt < 2:
        return example
    before = int(rng.integers(0, prompt // 2))  # slots of two tokens in front of the PAD
    widths = np.concatenate([np.full(before, 2), [1], _full_slots(prompt - 2 * before - 1)]).astype(np.int64)
    answer = prompt + prompt % 2  # where the answer's first slot begins
    tokens = example.input_ids[:answer][~example.pads[:answer]]
    unlabelled = np.full(prompt, IGNORED, dtype=np.int64)
    moved = _lay_out(tokens, unlabelled, prompt, np.empty(0, np.int64), pad_id, widths)
    return PairedExample(*(np.concatenate([head, whole[answer:]]) for head, whole in zip(moved, example, strict=True)))


def augment(
    ids: ArrayLike,
    labels: ArrayLike,
    *,
    phase: Phase | None,
    seed: int,
    epoch: int,
    pad_id: int,
    prompt_shift: float = 0.0,
) -> PairedExample:
    """Return the example as ``phase`` lays it out in this epoch, with ``ρ ~ U(0, phase.rho_max)``.

    The random generators are keyed by seed, epoch and the example's own tokens. So the layout depends neither on the
    batch nor on the order of calls, and an interrupted training goes on with the same data.

    Args:
        ids: token ids, ``[T]``.
        labels: the ids where there is a loss, else -100, ``[T]``.
        phase: where PADs are added in the answer; None for none beyond parity.
        seed: seed of the training.
        epoch: number of the epoch.
        pad_id: id of the PAD.
        prompt_shift: share of the examples whose prompt is shifted by one place (`shift_prompt`).

    Raises:
        ValueError: if the lengths of ids and labels differ.
    """
    example = _with_answer_pads(ids, labels, phase, example_generator(seed, epoch, ids), pad_id)
    prompt = prompt_length(labels)
    # A separate generator, so that shifting prompts does not change the PADs in answers.
    rng = np.random.default_rng([seed, epoch, example_key(ids), 1])
    if prompt_shift > 0 and rng.random() < prompt_shift:
        return shift_prompt(example, prompt=prompt, pad_id=pad_id, rng=rng)
    return example


def _with_answer_pads(
    ids: ArrayLike, labels: ArrayLike, phase: Phase | None, rng: np.random.Generator, pad_id: int
) -> PairedExample:
    """Return the example with PADs in its answer as ``phase`` states; None for parity only."""
    if phase is None:
        return pair(ids, labels, pad_id=pad_id)
    rho = rng.uniform(0.0, phase.rho_max)
    if phase.kind == "split":
        return split(ids, labels, pad_id=pad_id, rho=rho, rng=rng)
    if rng.random() < phase.all_pads:
        rho = 1.0
    return segment(ids, labels, pad_id=pad_id, rho=rho, rng=rng)


def choose_phase(phases: Sequence[AnyPhase], progress: float) -> AnyPhase:
    """Return the phase at ``progress``, the finished share of the training, in [0, 1]."""
    return next((phase for phase in phases if progress < phase.until), phases[-1])


def example_generator(seed: int, epoch: int, ids: ArrayLike) -> np.random.Generator:
    """Return the random generator of one example in one epoch."""
    return np.random.default_rng([seed, epoch, example_key(ids)])


def example_key(ids: ArrayLike) -> int:
    """Return a 64-bit hash of the example's token ids, the same on every machine and in every process."""
    content = np.asarray(ids, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _as_arrays(ids: ArrayLike, labels: ArrayLike) -> tuple[Tokens, Tokens, int]:
    """Return ids and labels as arrays, and the prompt's length."""
    token_ids, token_labels = np.asarray(ids, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if token_ids.ndim != 1 or token_ids.shape != token_labels.shape:
        raise ValueError(f"ids and labels of an example must match, got {token_ids.shape} and {token_labels.shape}")
    return token_ids, token_labels, prompt_length(token_labels)


def _full_slots(length: int) -> Tokens:
    """Return the widths of slots of two tokens; the last slot of an odd ``length`` has one."""
    widths = np.full((length + 1) // 2, 2, dtype=np.int64)
    if length % 2:
        widths[-1] = 1
    return widths


def _lay_out(
    ids: Tokens, labels: Tokens, prompt: int, widths: Tokens, pad_id: int, prompt_widths: Tokens | None = None
) -> PairedExample:
    """Return the prompt followed by the answer in slots of the given widths (1 or 2).

    Without ``prompt_widths`` the prompt is in slots of two tokens, made even by a PAD at its end.
    """
    widths = np.concatenate([_full_slots(prompt) if prompt_widths is None else prompt_widths, widths])
    starts = np.cumsum(widths) - widths
    source = np.full((widths.size, 2), -1, dtype=np.int64)
    source[:, 0] = starts
    source[widths == 2, 1] = starts[widths == 2] + 1
    pads = source.ravel() < 0
    positions = np.where(pads, 0, source.ravel())
    return PairedExample(
        input_ids=np.where(pads, pad_id, ids[positions]),
        labels=np.where(pads, IGNORED, labels[positions]),
        pads=pads,
    )
