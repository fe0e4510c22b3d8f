"""Sampling against distributions worked out by hand, and noise that belongs to the request."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.decode.draws import Cuts, draw_from_all, draw_from_likeliest
from pipo_core.decode.sampling import Sampler, SamplingParams, keyed_uniform
from pipo_core.errors import UsageError

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])


def frequencies(params: SamplingParams, logits: torch.Tensor = LOGITS, draws: int = 20_000) -> torch.Tensor:
    """Return how often each token is drawn over many seeds."""
    sequences = [SamplingParams(**{**params.__dict__, "seed": seed}) for seed in range(draws)]
    sampler = Sampler(sequences, [()] * draws, len(logits), CPU)
    tokens = sampler.sample(logits.expand(draws, -1), place=0)
    return torch.bincount(tokens, minlength=len(logits)) / draws


def expected(keep: int, temperature: float = 1.0) -> torch.Tensor:
    """Return the distribution over the ``keep`` likeliest tokens."""
    kept = torch.where(torch.arange(len(LOGITS)) < keep, LOGITS / temperature, -torch.inf)
    return kept.softmax(0)


@pytest.mark.parametrize(
    ("params", "distribution"),
    [
        (SamplingParams(), expected(5)),
        (SamplingParams(temperature=0.5), expected(5, 0.5)),
        (SamplingParams(top_k=2), expected(2)),
        (SamplingParams(top_p=0.7), expected(2)),  # 0.56 + 0.21 reaches 0.7
        (SamplingParams(top_p=0.5), expected(1)),
        (SamplingParams(top_k=4, top_p=0.9), expected(3)),
        (SamplingParams(temperature=0.0), expected(1)),
    ],
)
def test_tokens_follow_the_filtered_distribution(params: SamplingParams, distribution: torch.Tensor) -> None:
    torch.testing.assert_close(frequencies(params), distribution, atol=0.015, rtol=0)  # 4 standard errors


def test_a_draw_from_all_tokens_sorts_nothing_and_follows_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several blocks of a vocabulary, some of it out of the question, beside requests that do sort."""
    logits = torch.randn(1300, generator=torch.Generator().manual_seed(1)) * 2
    logits[::3] = -torch.inf
    found = frequencies(SamplingParams(temperature=1.5), logits)
    torch.testing.assert_close(found, (logits / 1.5).softmax(0), atol=0.005, rtol=0)
    mixed = [SamplingParams(seed=seed, top_k=3 * (seed % 2)) for seed in range(40)]
    together = Sampler(mixed, [()] * 40, 1300, CPU).sample(logits.expand(40, -1))
    assert set(together[1::2].tolist()) <= set(logits.topk(3).indices.tolist())
    monkeypatch.setattr(torch.Tensor, "topk", None)
    alone = [Sampler([one], [()], 1300, CPU).sample(logits[None]) for one in mixed[::2]]
    assert together[::2].tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("tokens", [[5], [511], [512], [700, 1299], [0, 1200]])
def test_no_noise_draws_a_token_without_probability(tokens: list[int], noise: float) -> None:
    scores = torch.full((1, 1300), -torch.inf)
    scores[0, tokens] = torch.tensor([0.1, 0.7][: len(tokens)])
    one, given = torch.ones(1, 1), torch.full((1, 1), noise)
    expected = tokens[0] if noise == 0 else tokens[-1]
    assert draw_from_all(scores, one, given).tolist() == [expected]
    likeliest = draw_from_likeliest(scores, Cuts(one, one, 1300 * one, 0 * one), given, 1300)
    assert likeliest.item() in tokens


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_p=0.8),  # the cut lies behind the tokens that are sorted first
        SamplingParams(top_p=0.1),  # and before
        SamplingParams(min_p=0.05),
        SamplingParams(min_p=1e-4),
        SamplingParams(top_k=1100),
        SamplingParams(top_k=1100, top_p=0.5),
    ],
)
def test_cuts_of_a_large_vocabulary_are_those_of_all_tokens_in_order(params: SamplingParams) -> None:
    logits = 2 * torch.randn(5000, generator=torch.Generator().manual_seed(2))
    ordered, ids = logits.sort(descending=True)
    kept = ordered[: params.top_k or None].softmax(0)
    kept = kept * (kept.cumsum(0) - kept < params.top_p) * (kept >= params.min_p * kept[0])
    seeds = range(200)
    noise = keyed_uniform(np.array(seeds, dtype=np.uint64), np.zeros(200, dtype=np.uint64), 0)
    expected = ids[torch.searchsorted(kept.cumsum(0), torch.tensor(noise) * kept.sum(), right=True)]
    sequences = [SamplingParams(**{**params.__dict__, "seed": seed}) for seed in seeds]
    found = Sampler(sequences, [()] * 200, 5000, CPU).sample(logits.expand(200, -1))
    assert (found != expected).sum() <= 1  # rounding may move a cut by a token


OTHERS = [
    SamplingParams(top_k=50),
    SamplingParams(top_p=0.999),
    SamplingParams(top_p=0.3),
    SamplingParams(min_p=0.01),
    SamplingParams(top_k=1500),
    SamplingParams(),
    SamplingParams(temperature=0.0),
]


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("params", [SamplingParams(top_k=20), SamplingParams(top_k=20, top_p=0.9), *OTHERS])
def test_no_draw_depends_on_the_others_even_among_equal_scores(params: SamplingParams, scale: float) -> None:
    """Scores in bf16 are often equal: of 3,000 tokens hundreds share one."""
    logits = (scale * torch.randn(30, 3000, generator=torch.Generator().manual_seed(3))).bfloat16().float()
    own = [SamplingParams(**{**params.__dict__, "seed": seed}) for seed in range(30)]
    alone = [int(Sampler([one], [()], 3000, CPU).sample(row[None])) for one, row in zip(own, logits, strict=True)]
    for other in OTHERS:
        both = Sampler([*own, other], [()] * 31, 3000, CPU).sample(torch.cat([logits, logits[:1]]))
        assert both[:30].tolist() == alone


def test_of_equal_scores_the_lower_ids_are_kept() -> None:
    scores = torch.zeros(1, 2000)
    scores[0, [1999, 5]] = 1.0
    drawn = {int(Sampler([SamplingParams(top_k=4, seed=s)], [()], 2000, CPU).sample(scores)) for s in range(100)}
    assert drawn == {5, 1999, 0, 1}


def test_a_request_without_cuts_makes_no_other_sort_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = (6 * torch.randn(2, 3000, generator=torch.Generator().manual_seed(4))).bfloat16().float()
    widths: list[int] = []
    plain = torch.Tensor.sort

    def watched(scores: torch.Tensor, **options: Any) -> Any:
        widths.append(scores.shape[1])
        return plain(scores, **options)

    monkeypatch.setattr(torch.Tensor, "sort", watched)
    mixed = [SamplingParams(top_p=0.9), SamplingParams(), SamplingParams(top_k=3000)]
    Sampler(mixed, [()] * 3, 3000, CPU).sample(torch.cat([logits, logits[:1]]))
    assert max(widths) == 1024


def test_sequences_with_different_settings_share_a_batch() -> None:
    sequences = [SamplingParams(temperature=0.0), SamplingParams(top_k=1), SamplingParams(top_p=0.01, seed=5)]
    sampler = Sampler(sequences, [()] * 3, 5, CPU)
    assert sampler.sample(LOGITS.expand(3, -1), place=0).tolist() == [0, 0, 0]


def test_penalties_count_output_and_repetition_counts_the_prompt_too() -> None:
    logits = torch.tensor([[1.0, 0.9, 0.8, -0.1]])

    def first_choice(prompt: tuple[int, ...], output: list[int], **penalty: Any) -> int:
        sampler = Sampler([SamplingParams(temperature=0.0, **penalty)], [prompt], 4, CPU)
        for token in output:
            sampler.count(torch.tensor([token]))
        return int(sampler.sample(logits, place=0))

    assert first_choice((0,), [], presence_penalty=0.5) == 0  # the prompt is not output
    assert first_choice((), [0], presence_penalty=0.5) == 1
    assert first_choice((), [0, 1], presence_penalty=0.15) == 0  # both lose the same
    assert first_choice((), [0, 0, 1], frequency_penalty=0.15) == 2  # 0.7, 0.75, 0.8
    assert first_choice((0,), [], repetition_penalty=2.0) == 1
    assert first_choice((0, 1, 2), [], repetition_penalty=0.5) == 0  # positive logits grow


def test_repetition_penalty_lowers_negative_logits() -> None:
    logits = torch.tensor([[-1.0, -1.1]])
    sampler = Sampler([SamplingParams(temperature=0.0, repetition_penalty=1.2)], [(0,)], 2, CPU)
    assert int(sampler.sample(logits, place=0)) == 1


def test_a_sequence_draws_the_same_alone_late_and_after_others_left() -> None:
    params = [SamplingParams(seed=seed, presence_penalty=0.3) for seed in (7, 8, 9)]
    logits = torch.randn(12, 3, 50, generator=torch.Generator().manual_seed(0))

    def alone(sequence: int) -> list[int]:
        sampler = Sampler([params[sequence]], [()], 50, CPU)
        tokens = []
        for step in range(12):
            tokens.append(int(sampler.sample(logits[step, sequence : sequence + 1], place=0)))
            sampler.count(torch.tensor(tokens[-1:]))
            sampler.advance()
        return tokens

    sampler = Sampler(params[:1], [()], 50, CPU)
    running = [0]
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    clock = {0: 0, 1: 0, 2: 0}
    for step in range(12):
        if step == 3:
            sampler.join(Sampler(params[1:], [(), ()], 50, CPU))
            running = [0, 1, 2]
        if step == 6:
            sampler.keep([2, 1])
            running = [2, 1]
        scores = torch.stack([logits[clock[sequence], sequence] for sequence in running])
        drawn = sampler.sample(scores, place=0)
        sampler.count(drawn)
        sampler.advance()
        for sequence, token in zip(running, drawn.tolist(), strict=True):
            tokens[sequence].append(token)
            clock[sequence] += 1
    for sequence in range(3):
        assert tokens[sequence] == alone(sequence)[: len(tokens[sequence])]


def test_drawing_for_some_sequences_leaves_the_others_noise_alone() -> None:
    params = [SamplingParams(seed=seed) for seed in range(40)]
    logits = torch.zeros(40, 100)
    sampler = Sampler(params, [()] * 40, 100, CPU)
    everyone = sampler.sample(logits, place=1)
    some = torch.tensor([3, 17, 30])
    assert torch.equal(sampler.sample(logits[some], place=1, indices=some), everyone[some])


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_noise_depends_on_every_key(seed: int, slot: int) -> None:
    seeds, slots = np.array([seed], dtype=np.uint64), np.array([slot], dtype=np.uint64)
    here = keyed_uniform(seeds, slots, 0)[0]
    assert 0 <= here < 1
    others = [
        keyed_uniform(seeds, slots, 1)[0],
        keyed_uniform(seeds, slots + np.uint64(1), 0)[0],
        keyed_uniform(seeds ^ np.uint64(1), slots, 0)[0],
    ]
    assert len({here, *others}) >= 3  # 24 bits: one coincidence in 16 million is allowed


def test_noise_is_uniform_and_uncorrelated() -> None:
    slots = np.arange(100_000, dtype=np.uint64)
    first, second = (keyed_uniform(np.zeros_like(slots), slots, place) for place in (0, 1))
    counts, _ = np.histogram(first, bins=100, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 150  # chi-square, 99 degrees of freedom, p = 0.0007
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.015


@given(st.floats(0, 1), st.integers(0, 2**64 - 1), st.integers(1, 60))
def test_any_run_of_slots_takes_the_share(share: float, seed: int, count: int) -> None:
    sampler = Sampler([SamplingParams(seed=seed)], [()], 10, CPU)
    taken = 0
    for _ in range(count):
        taken += int(sampler.spread(share))
        sampler.advance()
    assert abs(taken - count * share) < 1 + 1e-9
    assert taken == count * share or 0 < share < 1


def test_every_slot_takes_with_the_probability_of_the_share() -> None:
    sampler = Sampler([SamplingParams(seed=seed) for seed in range(20_000)], [()] * 20_000, 10, CPU)
    for _ in range(5):
        assert abs(float(sampler.spread(0.335).float().mean()) - 0.335) < 0.012  # 3.6 standard errors
        sampler.advance()


@given(st.floats(0, 4), st.integers(0, 2**64 - 1), st.integers(1, 60))
def test_steps_of_several_drafts_take_the_rate(rate: float, seed: int, count: int) -> None:
    sampler = Sampler([SamplingParams(seed=seed)], [()], 10, CPU)
    taken = [int(sampler.spread(rate, [step])) for step in range(count)]
    assert abs(sum(taken) - count * rate) < 1 + 1e-9
    assert {math.floor(rate), math.ceil(rate)} >= set(taken)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}, {"repetition_penalty": 0.0}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SamplingParams(**wrong)
