"""Batches of rows with different lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.data.augment import IGNORED, PairedRow, pair
from pipo_core.data.collate import collate_pairs, collate_regular

PAD = 9


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12), min_size=1, max_size=6))
def test_rows_lie_on_the_left_and_pads_have_no_label(token_rows: list[list[int]]) -> None:
    rows = [(np.array(ids), np.array(ids)) for ids in token_rows]
    batch = collate_regular(rows, pad_id=PAD)
    width = max(map(len, token_rows))
    assert batch.input_ids.shape == batch.labels.shape == (len(rows), width)
    for index, ids in enumerate(token_rows):
        assert batch.input_ids[index].tolist() == ids + [PAD] * (width - len(ids))
        assert batch.labels[index].tolist() == ids + [IGNORED] * (width - len(ids))


def test_pair_batches_have_an_even_length() -> None:
    rows = [pair(range(length), [IGNORED, *range(1, length)], pad_id=PAD) for length in (3, 8, 5)]
    batch = collate_pairs(rows, pad_id=PAD)
    assert batch.input_ids.shape == (3, 10)  # one PAD for the prompt of one token, one for the seven behind it
    for index, row in enumerate(rows):
        assert batch.input_ids[index, : row.input_ids.size].tolist() == row.input_ids.tolist()
        assert (batch.labels[index, row.labels.size :] == IGNORED).all()


def test_odd_rows_are_refused_for_pairs() -> None:
    odd = PairedRow(np.arange(3), np.arange(3), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="even"):
        collate_pairs([odd], pad_id=PAD)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="row"):
        collate_regular([], pad_id=PAD)
