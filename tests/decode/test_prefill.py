"""Prompts read in pieces against prompts read whole."""

from collections.abc import Callable

import pytest
import torch

from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.pair import PairMethod
from pipo_core.decode.prefill import PrefillSettings, PromptReader
from pipo_core.decode.regular import RegularMethod
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO

SETTINGS = PrefillSettings([SamplingParams(temperature=0.0)], reserved_positions=4)


@pytest.mark.parametrize("length", [1, 2, 9, 24, 25])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8])
def test_regular_reads_the_same_in_pieces(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], length: int, chunk: int
) -> None:
    prompts = [random_ids(length, length)]
    method = RegularMethod(reference, 0)
    whole = method.open_reader(prompts, SETTINGS).read()
    pieces = _counted(method.open_reader(prompts, SETTINGS, chunk), -(-length // chunk))
    _assert_same(whole, pieces)
    whole_sequences, whole_first = method.prefill(prompts, SETTINGS, reader=whole)
    sequences, first = method.prefill(prompts, SETTINGS, reader=pieces)
    _assert_same_sequences(whole_sequences.cache, sequences.cache)
    for _ in range(6):
        assert first.tokens.tolist() == whole_first.tokens.tolist()
        first, whole_first = method.step(sequences), method.step(whole_sequences)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 30, 31])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_pair_reads_the_same_in_pieces(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], length: int, chunk: int
) -> None:
    prompts = [random_ids(length, length)]
    method = PairMethod(reference, 0, tau=0.3)
    whole = method.open_reader(prompts, SETTINGS).read()
    pieces = _counted(method.open_reader(prompts, SETTINGS, chunk), -(-((length + 1) // 2) // chunk))
    _assert_same(whole, pieces)
    whole_sequences, whole_slot = method.prefill(prompts, SETTINGS, reader=whole)
    sequences, slot = method.prefill(prompts, SETTINGS, reader=pieces)
    _assert_same_sequences(whole_sequences.cache, sequences.cache)
    # The keys and values at the seams are those that the next piece's first token makes.
    assert sequences.mtp_cache is not None
    assert whole_sequences.mtp_cache is not None
    assert sequences.mtp_cache.lengths.tolist() == [(length + 1) // 2]
    _assert_same_sequences(whole_sequences.mtp_cache, sequences.mtp_cache)
    for _ in range(6):
        assert slot.tokens.tolist() == whole_slot.tokens.tolist()
        assert slot.counts.tolist() == whole_slot.counts.tolist()
        assert slot.confidence is not None
        assert whole_slot.confidence is not None
        torch.testing.assert_close(slot.confidence, whole_slot.confidence, atol=1e-4, rtol=0)
        slot, whole_slot = method.step(sequences), method.step(whole_sequences)


def test_prompts_of_several_lengths_are_read_at_once(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    settings = PrefillSettings([SamplingParams(temperature=0.0)] * 2)
    prompts = [random_ids(5, 1), random_ids(9, 2)]
    method = RegularMethod(reference, 0)
    reader = _counted(method.open_reader(prompts, settings, 2), 1)
    _assert_same(method.open_reader(prompts, settings).read(), reader)


def _counted(reader: PromptReader, pieces: int) -> PromptReader:
    """Read all and check the number of pieces."""
    for _ in range(pieces):
        assert not reader.done
        reader.advance()
    assert reader.done
    return reader


def _assert_same(whole: PromptReader, pieces: PromptReader) -> None:
    torch.testing.assert_close(pieces.hidden, whole.hidden, atol=1e-4, rtol=1e-4)


def _assert_same_sequences(whole: SequenceCache, pieces: SequenceCache) -> None:
    assert pieces.lengths.tolist() == whole.lengths.tolist()
    for one, other in zip(whole.layers, pieces.layers, strict=True):
        for mine, theirs in zip(one.buffers, other.buffers, strict=True):
            torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)
