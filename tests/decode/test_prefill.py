"""Prompts read in pieces against prompts read whole."""

from collections.abc import Callable

import pytest
import torch

from pipo_core.decode import pair, regular
from pipo_core.decode.cache import RowCache
from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import RowSettings
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO

SETTINGS = RowSettings([SamplingParams(temperature=0.0)], pad_id=0, room=4)


@pytest.mark.parametrize("length", [1, 2, 9, 24, 25])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8])
def test_regular_reads_the_same_in_pieces(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], length: int, chunk: int
) -> None:
    prompts = [random_ids(length, length)]
    whole = regular.open_reader(reference, prompts, SETTINGS).read()
    pieces = _counted(regular.open_reader(reference, prompts, SETTINGS, chunk), -(-length // chunk))
    _assert_same(whole, pieces)
    whole_rows, whole_first = regular.prefill(reference, prompts, SETTINGS, reader=whole)
    rows, first = regular.prefill(reference, prompts, SETTINGS, reader=pieces)
    _assert_same_rows(whole_rows.cache, rows.cache)
    for _ in range(6):
        assert first.tokens.tolist() == whole_first.tokens.tolist()
        first, whole_first = regular.step(reference, rows), regular.step(reference, whole_rows)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 30, 31])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_pair_reads_the_same_in_pieces(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], length: int, chunk: int
) -> None:
    prompts = [random_ids(length, length)]
    whole = pair.open_reader(reference, prompts, SETTINGS, 0.3).read()
    pieces = _counted(pair.open_reader(reference, prompts, SETTINGS, 0.3, chunk), -(-((length + 1) // 2) // chunk))
    _assert_same(whole, pieces)
    whole_rows, whole_slot = pair.prefill(reference, prompts, SETTINGS, 0.3, reader=whole)
    rows, slot = pair.prefill(reference, prompts, SETTINGS, 0.3, reader=pieces)
    _assert_same_rows(whole_rows.cache, rows.cache)
    # The keys and values at the seams are those that the next piece's first token makes.
    assert rows.mtp_cache is not None
    assert whole_rows.mtp_cache is not None
    assert rows.mtp_cache.lengths.tolist() == [(length + 1) // 2]
    _assert_same_rows(whole_rows.mtp_cache, rows.mtp_cache)
    for _ in range(6):
        assert slot.tokens.tolist() == whole_slot.tokens.tolist()
        assert slot.counts.tolist() == whole_slot.counts.tolist()
        assert slot.confidence is not None
        assert whole_slot.confidence is not None
        torch.testing.assert_close(slot.confidence, whole_slot.confidence, atol=1e-4, rtol=0)
        slot, whole_slot = pair.step(reference, rows), pair.step(reference, whole_rows)


def test_prompts_of_several_lengths_are_read_at_once(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    settings = RowSettings([SamplingParams(temperature=0.0)] * 2, pad_id=0)
    prompts = [random_ids(5, 1), random_ids(9, 2)]
    reader = _counted(regular.open_reader(reference, prompts, settings, 2), 1)
    _assert_same(regular.open_reader(reference, prompts, settings).read(), reader)


def _counted(reader: PromptReader, pieces: int) -> PromptReader:
    """Read all and check the number of pieces."""
    for _ in range(pieces):
        assert not reader.done
        reader.advance()
    assert reader.done
    return reader


def _assert_same(whole: PromptReader, pieces: PromptReader) -> None:
    torch.testing.assert_close(pieces.hidden, whole.hidden, atol=1e-4, rtol=1e-4)


def _assert_same_rows(whole: RowCache, pieces: RowCache) -> None:
    assert pieces.lengths.tolist() == whole.lengths.tolist()
    for one, other in zip(whole.layers, pieces.layers, strict=True):
        for mine, theirs in zip(one.buffers, other.buffers, strict=True):
            torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)
