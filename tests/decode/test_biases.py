"""What requests add to scores: biases of tokens, and ends that must wait."""

from typing import Any

import torch

from pipo_core.decode.sampling import Sampler, SamplingParams
from tests.decode.test_sampling import CPU, LOGITS, frequencies

GREEDY: dict[str, Any] = {"temperature": 0.0}


def test_a_bias_moves_the_distribution_as_if_the_scores_had_it() -> None:
    moved = LOGITS + torch.tensor([-2.0, 0.0, 0.0, 1.5, 0.0])
    found = frequencies(SamplingParams(logit_bias=((0, -2.0), (3, 1.5))))
    torch.testing.assert_close(found, moved.softmax(0), atol=0.015, rtol=0)


def test_min_p_leaves_out_what_is_far_less_likely_than_the_best() -> None:
    probabilities = LOGITS.softmax(0)
    kept = torch.where(probabilities >= 0.2 * probabilities.max(), probabilities, 0.0)
    assert 1 < (kept > 0).sum() < len(LOGITS)
    torch.testing.assert_close(frequencies(SamplingParams(min_p=0.2)), kept / kept.sum(), atol=0.015, rtol=0)


def test_an_end_waits_for_the_least_tokens_in_each_sequence() -> None:
    """Token 0 is the likeliest and ends sequences 0 and 1; they have different least lengths."""
    params = [SamplingParams(**GREEDY, min_tokens=least) for least in (2, 3, 2)]
    sampler = Sampler(params, [()] * 3, 5, CPU, ends=[frozenset({0}), frozenset({0, 1}), frozenset()])
    seen = []
    for _ in range(4):
        tokens = sampler.sample(LOGITS.expand(3, -1), place=0)
        sampler.count(tokens)
        seen.append(tokens.tolist())
    assert seen == [[1, 2, 0], [1, 2, 0], [0, 2, 0], [0, 0, 0]]


def test_sequences_that_come_and_go_keep_their_own() -> None:
    def start(*params: SamplingParams) -> Sampler:
        return Sampler(params, [()] * len(params), 5, CPU, ends=[frozenset({0})] * len(params))

    sampler = start(SamplingParams(**GREEDY), SamplingParams(**GREEDY, logit_bias=((4, 50.0),)))
    sampler.count(torch.tensor([1, 4]))
    sampler.join(start(SamplingParams(**GREEDY, min_tokens=1), SamplingParams(**GREEDY)))
    assert sampler.sample(LOGITS.expand(4, -1), place=0).tolist() == [0, 4, 1, 0]
    sampler.keep([2, 1])
    assert sampler.sample(LOGITS.expand(2, -1), place=0).tolist() == [1, 4]
    sampler.count(torch.tensor([1, 4]), torch.tensor([True, False]))
    assert sampler.sample(LOGITS.expand(2, -1), place=0).tolist() == [0, 4]


def test_a_small_vocabulary_and_a_part_of_the_sequences_have_the_same_biases() -> None:
    params = [SamplingParams(**GREEDY, logit_bias=((3, 9.0),)), SamplingParams(**GREEDY, min_tokens=1)]
    sampler = Sampler(params, [()] * 2, 5, CPU, ends=[frozenset({1})] * 2)
    ids = torch.tensor([1, 2, 3])
    scores = LOGITS[ids]
    assert sampler.sample(scores.expand(2, -1), place=1, vocabulary=ids).tolist() == [3, 2]
    assert sampler.sample(scores[None], place=1, indices=torch.tensor([1]), vocabulary=ids).tolist() == [2]
