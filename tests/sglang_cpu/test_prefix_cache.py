"""A prompt whose beginning is cached is answered as if nothing were: also where prefixes go on differently.

A slot's key and value in the MTP layer depend on the first token of the next slot, so the two prefixes that share all
slots up to one, and differ behind it, must not share that one.
"""

import random
from collections.abc import Sequence

import pytest

from tests.sglang_cpu.conftest import Client, Reference, assert_equal


def families(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Return for each length four prompts that share as many tokens and go on differently."""
    rng = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(261, 440) for _ in range(count)]

    found = []
    for length in lengths:
        shared = tokens(length)
        found += [[*shared, *tokens(rng.choice([1, 2, 5, 40]))] for _ in range(4)]
    return found


@pytest.mark.parametrize("lengths", [(127, 128, 129), (130, 131, 255), (256, 257, 258), (64, 200, 386)])
def test_prefixes_that_go_on_differently(
    client: Client, reference: Reference, ends: frozenset[int], lengths: Sequence[int]
) -> None:
    """Slots are cached up to multiples of 64: lengths around 128 tokens and twice that."""
    asked = families(lengths, sum(lengths))
    expected = reference.answers(asked, 0.4, max_tokens=16, ignore_end=True)
    changes = {"max_new_tokens": 16, "ignore_eos": True}
    cold = [client.generate(ids, 0.4, **changes) for ids in asked]
    assert_equal(cold, expected, ends)
    warm = client.generate_all(asked, 0.4, **changes)
    assert_equal(warm, expected, ends)
    hits = [answer["meta_info"]["cached_tokens"] for answer in warm]
    assert any(hits), "nothing was cached, so nothing was tested"
    assert all(hit <= len(ids) for hit, ids in zip(hits, asked, strict=True))


def test_an_answer_that_is_sent_back(client: Client, reference: Reference, ends: frozenset[int]) -> None:
    """A second turn finds the first one's prompt and answer in the cache."""
    [first, *_] = families([300], seed=5)
    answer = client.generate(first, 0.4, max_new_tokens=90, ignore_eos=True)
    second = [*first, *answer["output_ids"], 301, 302, 303]
    [expected] = reference.answers([second], 0.4, max_tokens=20, ignore_end=True)
    again = client.generate(second, 0.4, max_new_tokens=20, ignore_eos=True)
    assert again["meta_info"]["cached_tokens"] >= 128
    assert_equal([again], [expected], ends)


def test_eviction_under_pressure(client: Client, reference: Reference, ends: frozenset[int]) -> None:
    """More different prompts than the memory holds, twice: entries are dropped, and no answer changes."""
    asked = families([500, 380, 260, 501, 381, 261, 502, 382], seed=9)
    expected = reference.answers(asked, 0.4, max_tokens=12, ignore_end=True)
    for _ in range(2):
        assert_equal(client.generate_all(asked, 0.4, max_new_tokens=12, ignore_eos=True), expected, ends)
