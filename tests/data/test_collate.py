"""Batches of examples with different lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.augment import IGNORED, PairedExample, pair
from pipo_core.data.collate import collate_pairs, collate_regular

PAD = 9


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12), min_size=1, max_size=6))
def test_examples_lie_on_the_left_and_pads_have_no_label(token_lists: list[list[int]]) -> None:
    examples = [(np.array(ids), np.array(ids)) for ids in token_lists]
    batch = collate_regular(examples, pad_id=PAD)
    width = max(map(len, token_lists))
    assert batch.input_ids.shape == batch.labels.shape == (len(examples), width)
    for index, ids in enumerate(token_lists):
        assert batch.input_ids[index].tolist() == ids + [PAD] * (width - len(ids))
        assert batch.labels[index].tolist() == ids + [IGNORED] * (width - len(ids))


def test_pair_batches_have_an_even_length() -> None:
    examples = [pair(range(length), [IGNORED, *range(1, length)], pad_id=PAD) for length in (3, 8, 5)]
    batch = collate_pairs(examples, pad_id=PAD)
    assert batch.input_ids.shape == (3, 10)  # one PAD for the prompt of one token, one for the seven behind it
    for index, example in enumerate(examples):
        assert batch.input_ids[index, : example.input_ids.size].tolist() == example.input_ids.tolist()
        assert (batch.labels[index, example.labels.size :] == IGNORED).all()


def test_odd_examples_are_refused_for_pairs() -> None:
    odd = PairedExample(np.arange(3), np.arange(3), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="even"):
        collate_pairs([odd], pad_id=PAD)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        collate_regular([], pad_id=PAD)
