"""Attention over sequences of different lengths equals each one's own, written out; tests/gpu has the recordings."""

import pytest
import torch

from pipo_core.decode import attention
from pipo_core.decode.attention import attend, needs_mask
from pipo_core.decode.cache import SequenceCache
from pipo_core.model import Qwen3_5ForCausalPIPO

HEADS, GROUPS, SIZE, CAPACITY = 2, 3, 8, 24


def cache_of(reference: Qwen3_5ForCausalPIPO, lengths: list[int], block: int) -> SequenceCache:
    """Return a cache whose sequences hold so many positions; what they hold is not looked at."""
    cache = SequenceCache(
        reference.mtp.config,
        max_sequences=len(lengths),
        capacity=CAPACITY,
        block=block,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )
    cache.load([[torch.empty(len(lengths), HEADS, 0, SIZE)] * 2], lengths)
    return cache


def read_one_by_one(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: list[int], scale: float
) -> torch.Tensor:
    """Softmax-weighted sums, query by query: ``Σ_k softmax(scale · q·k)_k v_k`` over a position's past and itself."""
    read = torch.empty_like(queries)
    for sequence, place, head in torch.cartesian_prod(*map(torch.arange, queries.shape[:3])).tolist():
        seen, shared = lengths[sequence] + place + 1, head // GROUPS
        scores = scale * (keys[sequence, shared, :seen] @ queries[sequence, place, head])
        read[sequence, place, head] = scores.softmax(0) @ values[sequence, shared, :seen]
    return read


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("lengths", [[5], [7, 7], [3, 19, 11]])
@pytest.mark.parametrize("way", ["together", "alone", "blocks"])
def test_attention_is_each_sequences_own(
    reference: Qwen3_5ForCausalPIPO, monkeypatch: pytest.MonkeyPatch, width: int, lengths: list[int], way: str
) -> None:
    monkeypatch.setattr(attention, "_WORTH_A_CALL", 0 if way == "alone" else 1 << 40)
    cache = cache_of(reference, lengths, block=8 if way == "blocks" else 1)
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), HEADS, cache.seen(width), SIZE)
    queries = torch.randn(len(lengths), width, HEADS * GROUPS, SIZE, generator=generator, dtype=torch.float64)
    keys, values = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = cache.mask(width) if needs_mask(cache, width) else None
    found = attend(queries, keys, values, cache, mask, 0.3)
    expected = read_one_by_one(queries, keys, values, lengths, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_only_unequal_sequences_need_a_mask(reference: Qwen3_5ForCausalPIPO) -> None:
    assert not needs_mask(cache_of(reference, [4, 4], block=1), 1)
    assert needs_mask(cache_of(reference, [4, 5], block=1), 1)
    assert needs_mask(cache_of(reference, [4, 4], block=1), 2)  # the first of two may not see the second
    assert needs_mask(cache_of(reference, [4, 4], block=8), 1)  # buffers are longer than sequences
