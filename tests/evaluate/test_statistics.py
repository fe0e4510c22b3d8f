import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.evaluate.statistics import (
    average_at_k,
    mean_with_interval,
    means_with_intervals,
    paired_difference,
    pass_at_k,
)


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_answer(samples: int) -> None:
    counts = np.arange(samples + 1)
    for k in range(1, samples + 1):
        expected = []
        for right in counts:
            answers = [True] * right + [False] * (samples - right)
            subsets = list(itertools.combinations(answers, k))
            expected.append(sum(any(subset) for subset in subsets) / len(subsets))
        np.testing.assert_allclose(pass_at_k(samples, counts, k), expected, atol=1e-12)


@given(st.integers(1, 400), st.data())
def test_pass_at_k_equals_the_formula_in_exact_arithmetic(samples: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    exact = 1 - Fraction(math.comb(samples - right, k), math.comb(samples, k))
    assert pass_at_k(samples, np.array([right]), k)[0] == pytest.approx(float(exact), abs=1e-9)


def test_pass_at_k_is_unbiased() -> None:
    # Over the binomial law of c, the mean of the estimator is the true 1 - (1 - p)^k.
    samples, chance = 6, 0.3
    counts = np.arange(samples + 1)
    law = np.array([math.comb(samples, c) * chance**c * (1 - chance) ** (samples - c) for c in counts])
    for k in range(1, samples + 1):
        assert law @ pass_at_k(samples, counts, k) == pytest.approx(1 - (1 - chance) ** k)


def test_pass_at_one_is_the_average() -> None:
    correct = np.random.default_rng(0).random((50, 4)) < 0.4
    np.testing.assert_allclose(pass_at_k(4, correct.sum(axis=1), 1), average_at_k(correct))


def test_pass_at_k_refuses_what_has_no_meaning() -> None:
    for k in (0, 5):
        with pytest.raises(ValueError, match="samples per question"):
            pass_at_k(4, np.array([1]), k)
    with pytest.raises(ValueError, match="between 0 and 4"):
        pass_at_k(4, np.array([5]), 2)


def test_the_interval_is_the_one_of_all_possible_resamples() -> None:
    scores = np.array([0.0, 0.25, 0.75, 1.0, 1.0])
    means = [np.mean(draw) for draw in itertools.product(scores, repeat=len(scores))]
    low, high = np.quantile(means, [0.025, 0.975])
    estimate = mean_with_interval(scores, seed=3, resamples=200_000)
    assert estimate.value == pytest.approx(0.6)
    # The exact distribution has steps of 0.05: its quantiles are hit exactly.
    assert estimate.low == pytest.approx(low)
    assert estimate.high == pytest.approx(high)


def test_for_many_questions_the_interval_is_the_normal_one() -> None:
    scores = np.random.default_rng(1).binomial(4, 0.6, size=2_000) / 4
    error = 1.96 * scores.std() / math.sqrt(len(scores))
    estimate = mean_with_interval(scores, seed=0)
    assert estimate.low == pytest.approx(scores.mean() - error, abs=0.001)
    assert estimate.high == pytest.approx(scores.mean() + error, abs=0.001)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(7)
    covered, runs, questions, samples = 0, 400, 80, 4
    for run in range(runs):
        # Mean 2/3; answers to one question are correlated.
        difficulty = generator.beta(2, 1, size=questions)
        scores = generator.binomial(samples, difficulty) / samples
        estimate = mean_with_interval(scores, seed=run, resamples=1_000)
        covered += estimate.low <= 2 / 3 <= estimate.high
    assert 0.92 <= covered / runs <= 0.98  # 2.7 standard errors of 400 runs either side


def test_pairing_covers_the_truth_and_takes_the_common_difficulty_out() -> None:
    generator = np.random.default_rng(11)
    covered, runs, questions = 0, 400, 80
    for run in range(runs):
        difficulty = generator.uniform(0.1, 0.9, size=questions)
        scores = generator.binomial(4, difficulty + 0.1) / 4
        baseline = generator.binomial(4, difficulty) / 4
        paired = paired_difference(scores, baseline, seed=run, resamples=1_000)
        covered += paired.low <= 0.1 <= paired.high
        alone = [mean_with_interval(x, seed=run, resamples=1_000) for x in (scores, baseline)]
        unpaired = math.hypot(*(x.high - x.low for x in alone))
        assert paired.high - paired.low < unpaired
    assert 0.92 <= covered / runs <= 0.98


def test_a_seed_fixes_the_interval() -> None:
    scores = np.random.default_rng(0).random(37)
    assert mean_with_interval(scores, seed=5) == mean_with_interval(scores, seed=5)
    assert mean_with_interval(scores, seed=5) != mean_with_interval(scores, seed=6)


def test_scores_resampled_together_are_as_resampled_alone() -> None:
    scores = np.random.default_rng(0).random((40, 3))
    together = means_with_intervals(scores, seed=2)
    for estimate, column in zip(together, scores.T, strict=True):
        alone = mean_with_interval(column, seed=2)
        assert estimate.as_dict() == pytest.approx(alone.as_dict(), abs=1e-12)


def test_blocks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random(30)
    whole = mean_with_interval(scores, seed=5, resamples=500)
    monkeypatch.setattr("pipo_core.evaluate.statistics._MAX_INDICES", 30 * 7)
    blocked = mean_with_interval(scores, seed=5, resamples=500)
    assert blocked.as_dict() == pytest.approx(whole.as_dict(), abs=1e-12)


@pytest.mark.parametrize(("questions", "bound"), [(1, 0.975), (30, 0.1157), (100, 0.0362)])
def test_full_marks_are_not_certainty(questions: int, bound: float) -> None:
    # Published two-sided 95 % Clopper-Pearson bounds for 0 events in n.
    perfect = mean_with_interval(np.ones(questions), seed=0)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(1 - bound, abs=1e-4)
    nothing = mean_with_interval(np.zeros(questions), seed=0)
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(bound, abs=1e-4)
    same = paired_difference(np.ones(questions), np.ones(questions), seed=0)
    assert same.value == 0.0
    assert (same.low, same.high) == pytest.approx((-bound, bound), abs=1e-4)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="no question"):
        mean_with_interval(np.array([]), seed=0)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.ones(3), np.ones(4), seed=0)
