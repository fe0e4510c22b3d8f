"""Augmentation changes the slots of an example, never its text."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.augment import (
    IGNORED,
    PairedExample,
    augment,
    choose_phase,
    example_generator,
    example_key,
    pair,
    prompt_length,
    segment,
    shift_prompt,
    split,
)

Conversation = tuple[np.ndarray, np.ndarray]  # ids and labels

PAD = 7  # also an ordinary token in the examples below: the mask alone marks PADs


@dataclass(frozen=True)
class Phase:
    kind: Literal["split", "segment"] = "split"
    rho_max: float = 0.25
    all_pads: float = 0.0
    until: float = 1.0


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Examples with a prompt, an answer and, at times, further turns without a loss in between."""
    parts = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=4))
    learned = np.array([flag for flag, length in [(False, draw(st.integers(1, 9))), *parts] for _ in range(length)])
    ids = np.array(draw(st.lists(st.integers(0, 20), min_size=learned.size, max_size=learned.size)))
    return ids, np.where(learned, ids, IGNORED)


rhos = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


def check(example: PairedExample, ids: np.ndarray, labels: np.ndarray) -> None:
    prompt = prompt_length(labels)
    assert example.input_ids.size % 2 == 0
    assert not example.pads[0::2].any(), "PADs are at place 1 only"
    assert (example.input_ids[example.pads] == PAD).all()
    assert (example.labels[example.pads] == IGNORED).all()
    assert example.input_ids[~example.pads].tolist() == ids.tolist()
    assert example.labels[~example.pads].tolist() == labels.tolist()
    even_prompt = prompt + prompt % 2
    assert example.pads[:even_prompt].sum() == prompt % 2
    assert prompt % 2 == 0 or example.pads[even_prompt - 1], "the prompt's PAD is at its end"


@given(conversations(), st.booleans(), seeds)
def test_a_shifted_prompt_has_every_later_token_in_the_other_place(
    conversation: Conversation, cut: bool, seed: int
) -> None:
    ids, labels = conversation
    rng = np.random.default_rng(seed)
    example = segment(ids, labels, pad_id=PAD, rho=0.5, rng=rng) if cut else pair(ids, labels, pad_id=PAD)
    prompt = prompt_length(labels)
    shifted = shift_prompt(example, prompt=prompt, pad_id=PAD, rng=rng)
    if prompt < 2:
        assert all(np.array_equal(mine, other) for mine, other in zip(shifted, example, strict=True))
        return
    assert shifted.input_ids[~shifted.pads].tolist() == ids.tolist()
    assert shifted.labels[~shifted.pads].tolist() == labels.tolist()
    assert not shifted.pads[0::2].any()
    end, moved_end = prompt + prompt % 2, 2 * (prompt // 2 + 1)
    assert shifted.input_ids[moved_end:].tolist() == example.input_ids[end:].tolist(), "the answer is where it was"
    # One PAD is inside the prompt. An even prompt has another one at its end.
    assert shifted.pads[:moved_end].sum() == 2 - prompt % 2
    inside = int(np.flatnonzero(shifted.pads)[0])
    places = np.flatnonzero(~shifted.pads[:moved_end]) % 2
    assert (places[:inside] == np.arange(inside) % 2).all()
    assert (places[inside:] != np.arange(inside, prompt) % 2).all()


def test_the_share_of_shifted_prompts_is_the_one_asked_for() -> None:
    ids = np.arange(20)
    labels = np.where(ids >= 7, ids, IGNORED)

    def lay_out(epoch: int, share: float) -> PairedExample:
        return augment(ids, labels, phase=Phase(), seed=0, epoch=epoch, pad_id=PAD, prompt_shift=share)

    plain = [lay_out(epoch, 0.0).input_ids.tolist() for epoch in range(400)]
    some = [lay_out(epoch, 0.5).input_ids.tolist() for epoch in range(400)]
    assert 160 < sum(one != other for one, other in zip(plain, some, strict=True)) < 240
    assert all(lay_out(epoch, 1.0).input_ids.tolist() != plain[epoch] for epoch in range(50))


@given(conversations())
def test_pairs_have_pads_for_parity_only(conversation: Conversation) -> None:
    ids, labels = conversation
    example = pair(ids, labels, pad_id=PAD)
    check(example, ids, labels)
    prompt = prompt_length(labels)
    assert example.pads.sum() == prompt % 2 + (ids.size - prompt) % 2


@given(conversations(), rhos, seeds)
def test_split_splits_the_stated_number_of_pairs(conversation: Conversation, rho: float, seed: int) -> None:
    ids, labels = conversation
    plain = pair(ids, labels, pad_id=PAD)
    example = split(ids, labels, pad_id=PAD, rho=rho, rng=np.random.default_rng(seed))
    check(example, ids, labels)
    prompt = prompt_length(labels)
    full_pairs = (ids.size - prompt) // 2
    pairs = sum(labels[prompt + 2 * i + 1] != IGNORED for i in range(full_pairs))
    expected = max(1, round(pairs * rho)) if pairs else 0
    assert example.input_ids.size // 2 - plain.input_ids.size // 2 == expected
    # Split pairs aside, every pair starts at an even offset of the answer: the phase never changes.
    places = np.flatnonzero(~example.pads)
    offset = {int(place): index - prompt for index, place in enumerate(places)}
    two = [p for p in range(prompt + prompt % 2, example.pads.size, 2) if not example.pads[p + 1]]
    assert all(offset[p] % 2 == 0 for p in two)


@given(conversations(), rhos, seeds)
def test_segment_keeps_the_text(conversation: Conversation, rho: float, seed: int) -> None:
    ids, labels = conversation
    example = segment(ids, labels, pad_id=PAD, rho=rho, rng=np.random.default_rng(seed))
    check(example, ids, labels)


@given(conversations(), seeds)
def test_segment_at_its_ends(conversation: Conversation, seed: int) -> None:
    ids, labels = conversation
    rng = np.random.default_rng(seed)
    assert [a.tolist() for a in segment(ids, labels, pad_id=PAD, rho=0.0, rng=rng)] == [
        a.tolist() for a in pair(ids, labels, pad_id=PAD)
    ]
    prompt = prompt_length(labels)
    alone = segment(ids, labels, pad_id=PAD, rho=1.0, rng=rng)
    assert alone.pads[prompt + prompt % 2 :].reshape(-1, 2)[:, 1].all()


def test_segment_makes_single_slots_at_the_stated_rate() -> None:
    ids = np.arange(20_000)
    labels = ids.copy()
    labels[0] = IGNORED
    example = segment(ids, labels, pad_id=PAD, rho=0.3, rng=np.random.default_rng(0))
    singles = example.pads[2:].reshape(-1, 2)[:, 1]
    assert singles.mean() == pytest.approx(0.3, abs=0.02)
    starts = (np.cumsum(np.where(singles, 1, 2)) - np.where(singles, 1, 2))[~singles]
    assert (starts % 2).mean() == pytest.approx(0.5, abs=0.05), "pairs start at odd offsets as often as at even ones"


@given(conversations(), seeds, st.integers(0, 5), st.sampled_from(["split", "segment"]))
def test_layouts_depend_on_seed_epoch_and_example_alone(
    conversation: Conversation, seed: int, epoch: int, kind: Literal["split", "segment"]
) -> None:
    ids, labels = conversation
    phase = Phase(kind, rho_max=0.5)

    def lay_out() -> PairedExample:
        return augment(ids, labels, phase=phase, seed=seed, epoch=epoch, pad_id=PAD)

    first = lay_out()
    augment(ids[::-1].copy(), labels[::-1].copy(), phase=phase, seed=seed, epoch=epoch, pad_id=PAD)
    check(first, ids, labels)
    assert all((a == b).all() for a, b in zip(first, lay_out(), strict=True))


def test_epochs_seeds_and_examples_differ() -> None:
    ids = np.arange(60)
    labels = ids.copy()
    labels[:3] = IGNORED
    phase = Phase("segment", rho_max=0.9)
    masks = {
        augment(
            ids + shift, labels + shift * (labels >= 0), phase=phase, seed=seed, epoch=epoch, pad_id=PAD
        ).pads.tobytes()
        for seed, epoch, shift in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(masks) == 4


def test_all_pads_is_the_share_of_examples_at_rho_one() -> None:
    phase = Phase("segment", rho_max=0.2, all_pads=0.4)
    labels = np.arange(40)
    labels[:2] = IGNORED
    alone = 0
    for number in range(1000):
        ids = np.arange(40) + number
        laid_out = augment(ids, np.where(labels < 0, labels, ids), phase=phase, seed=0, epoch=0, pad_id=PAD)
        alone += bool(laid_out.pads[2:].reshape(-1, 2)[:, 1].all())
    assert alone / 1000 == pytest.approx(0.4, abs=0.05)


def test_rho_is_uniform_up_to_its_end() -> None:
    rates = []
    for number in range(300):
        ids = np.arange(400) + 400 * number
        labels = ids.copy()
        labels[0] = IGNORED
        laid_out = augment(ids, labels, phase=Phase("split", rho_max=0.25), seed=0, epoch=0, pad_id=PAD)
        # Each split pair makes one slot more; the answer has 199 whole pairs.
        rates.append((laid_out.input_ids.size // 2 - 201) / 199)
    assert np.mean(rates) == pytest.approx(0.125, abs=0.01)
    assert max(rates) <= 0.26
    assert max(rates) > 0.24


def test_phases_follow_one_another() -> None:
    phases = [Phase("split", until=0.5), Phase("segment", until=1.0)]
    assert choose_phase(phases, 0.0).kind == "split"
    assert choose_phase(phases, 0.499).kind == "split"
    assert choose_phase(phases, 0.5).kind == "segment"
    assert choose_phase(phases, 1.0).kind == "segment"


def test_the_key_of_an_example_is_the_same_everywhere() -> None:
    # Fixed by the algorithm, BLAKE2b over little-endian 64-bit ids: another machine must place the same PADs.
    assert example_key([1, 2, 3]) == example_key(np.array([1, 2, 3], dtype=np.int32))
    assert example_key([1, 2, 3]) != example_key([3, 2, 1])
    assert example_generator(0, 0, [1]).random() != example_generator(0, 1, [1]).random()


def test_mismatched_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="match"):
        pair([1, 2, 3], [1, 2], pad_id=PAD)
