import itertools
import math
import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipo_core.evaluate.statistics import (
    MAX_FLIPPED,
    average_at_k,
    detectable_difference,
    detectable_difference_alike,
    mean_with_interval,
    means_with_intervals,
    paired_difference,
    pass_at_k,
    sign_flip_p,
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


def test_counts_that_give_a_row_of_the_paper() -> None:
    # PIPO's main table, Qwen3.5-4B without pairs on AIME 2025, 30 questions and 4 answers: avg@4 49.17, pass@4 63.33.
    # That is 59 of 120 answers and 19 of 30 questions.
    counts = np.array([4] * 2 + [3] * 17 + [0] * 11)
    correct = counts[:, None] > np.arange(4)
    assert (correct.sum(), correct.any(axis=1).sum()) == (59, 19)
    assert f"{100 * average_at_k(correct).mean():.2f}" == "49.17"
    assert f"{100 * pass_at_k(4, counts, 4).mean():.2f}" == "63.33"


EVEN = [0.0, 0.25, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    "scores", [EVEN, [0.0, 1.0], [0.5, 0.25, 0.0], [0.0, 0.25, 0.5, 1.0], [0.13, 0.37, 0.51, 0.94]]
)
def test_the_interval_is_the_one_of_all_possible_resamples(scores: list[float]) -> None:
    # All Q^Q resamples, each as likely as any other. The bootstrap draws them, so its quantile hits one of their means,
    # unless a mean's share reaches the quantile exactly: then it may be the next one.
    means = sorted(sum(draw) / len(draw) for draw in itertools.product(scores, repeat=len(scores)))
    estimate = mean_with_interval(np.array(scores), seed=3, resamples=200_000)
    assert estimate.value == pytest.approx(sum(scores) / len(scores))
    for bound, share in ((estimate.low, 0.025), (estimate.high, 0.975)):
        place = share * (len(means) - 1)
        slack = 0.002 * len(means)
        least, most = means[max(0, math.floor(place - slack))], means[min(len(means) - 1, math.ceil(place + slack))]
        assert least - 1e-9 <= bound <= most + 1e-9
    if scores == EVEN:  # steps of 0.05, and no share near the quantiles
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


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
    assert same.as_dict()["p"] == 1


def brute_force_p(differences: list[float]) -> Fraction:
    """The share of all sign patterns, zeros included, whose absolute sum reaches the observed one; in fractions."""
    exact = [Fraction(value).limit_denominator(1000) for value in differences]
    observed = abs(sum(exact, Fraction()))
    patterns = list(itertools.product((1, -1), repeat=len(exact)))
    sums = [abs(sum(map(operator.mul, pattern, exact), Fraction())) for pattern in patterns]
    return Fraction(sum(total >= observed for total in sums), len(patterns))


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=9), st.sampled_from([1, 3, 4, 8]))
def test_the_p_value_is_the_one_of_all_sign_patterns(eighths: list[int], samples: int) -> None:
    differences = [value / samples for value in eighths]
    assert sign_flip_p(np.array(differences), seed=0) == pytest.approx(float(brute_force_p(differences)))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.0] * 9, 1),
        ([], 1),
        ([1.0], 1),
        ([1.0] * 6, 2 / 64),  # the sign test: 2 · (1/2)^6
        ([1.0] * 5 + [-1.0], 14 / 64),
        ([0.25] * 10 + [0.0] * 20, 2 / 1024),
        # Wilcoxon's ranks 1 to 5, all of one sign.
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2 / 32),
        # Darwin's maize plants, eighths of an inch (Fisher 1935): 1,726 of 32,768 patterns.
        ([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], 1726 / 32768),
    ],
)
def test_known_p_values(differences: list[float], p: float) -> None:
    many = sum(value != 0 for value in differences) > MAX_FLIPPED
    found = sign_flip_p(np.array(differences), seed=1, draws=400_000 if many else 10)
    assert found == pytest.approx(p, abs=0.002 if many else 1e-12)


def test_drawn_patterns_never_give_zero_and_need_their_seed() -> None:
    clear = np.ones(40)
    assert sign_flip_p(clear, seed=0, draws=999) == 1 / 1000
    noisy = np.random.default_rng(4).normal(0.2, 1, size=40)
    assert sign_flip_p(noisy, seed=1) == sign_flip_p(noisy, seed=1)
    assert sign_flip_p(noisy, seed=1) != sign_flip_p(noisy, seed=2)
    assert sign_flip_p(noisy, seed=1) == sign_flip_p(-noisy, seed=1)
    assert paired_difference(noisy, np.zeros(40), seed=1).p == sign_flip_p(noisy, seed=1)


def test_equal_arms_are_told_apart_at_most_5_times_in_100() -> None:
    generator = np.random.default_rng(5)
    runs, seen, seen_in_quarters = 1_000, 0, 0
    for run in range(runs):
        difficulty = generator.beta(2, 1, size=30)
        one, other = (generator.binomial(4, difficulty) / 4 for _ in range(2))
        seen_in_quarters += sign_flip_p(one - other, seed=run, draws=999) <= 0.05
        seen += sign_flip_p(generator.normal(size=30), seed=run, draws=999) <= 0.05
    assert 0.03 <= seen / runs <= 0.07
    # Sums of quarters are often equal to the observed one, and then count: the test is careful.
    assert 0.015 <= seen_in_quarters / runs <= 0.055


# Printed quantiles of Student's t by degrees of freedom: t of 0.975 plus t of 0.8.
T = {5: 2.5706 + 0.9195, 29: 2.0452 + 0.8542, 99: 1.9842 + 0.8453, 199: 1.9720 + 0.8434}


def evaluation(
    generator: np.random.Generator, shift: float, questions: int, samples: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two arms' answers to questions of different difficulty; the second is better by `shift` in every question."""
    chance = generator.uniform(0.1, 0.7, size=questions)[:, None]
    shape = (questions, samples)
    return generator.random(shape) < chance, generator.random(shape) < chance + shift


@pytest.mark.parametrize(("questions", "samples"), [(30, 4), (198, 1), (100, 8)])
def test_a_true_difference_of_the_detectable_size_is_seen_80_times_in_100(questions: int, samples: int) -> None:
    generator = np.random.default_rng(questions)

    def detectable(shift: float) -> float:
        found = []
        for _ in range(300):
            base, better = evaluation(generator, shift, questions, samples)
            found.append(detectable_difference(average_at_k(better) - average_at_k(base), samples))
        return float(np.mean([value for value in found if value is not None]))

    shift = detectable(detectable(0.1))
    seen, runs = 0, 1_000
    for run in range(runs):
        base, better = evaluation(generator, shift, questions, samples)
        p = sign_flip_p(average_at_k(better) - average_at_k(base), seed=run, draws=999)
        seen += p <= 0.05
    assert 0.77 <= seen / runs <= 0.83  # 2.5 standard errors of 1,000 runs are 3.2 points


@pytest.mark.parametrize(("questions", "samples"), [(30, 4), (200, 2)])
def test_one_arm_tells_what_two_alike_would(questions: int, samples: int) -> None:
    generator = np.random.default_rng(1)
    alone, paired = [], []
    for _ in range(600):
        base, other = evaluation(generator, 0.0, questions, samples)
        alone.append(detectable_difference_alike(base))
        paired.append(detectable_difference(average_at_k(other) - average_at_k(base), samples))
    # Means of squares, because the variance is what is estimated without bias.
    factor, step = T[questions - 1], 1 / samples / questions
    one, two = (np.mean(np.square(np.array(found, dtype=float) - step)) for found in (alone, paired))
    assert one == pytest.approx(two, rel=0.05)
    # By hand: p uniform on [0.1, 0.7] has E[p(1 - p)] = 0.4 - (0.16 + 0.03) = 0.21.
    assert one == pytest.approx(factor**2 * 2 * 0.21 / samples / questions, rel=0.05)


def test_one_answer_a_question_is_taken_at_its_largest_variance() -> None:
    correct = np.array([[True]] * 50 + [[False]] * 50)
    expected = T[99] * math.sqrt(2 * 0.25 / 100) + 1 / 100
    assert detectable_difference_alike(correct) == pytest.approx(expected, rel=1e-4)


def test_arms_that_agree_do_not_make_an_evaluation_infinitely_sharp() -> None:
    agreed = detectable_difference(np.zeros(30), 4)
    assert agreed is not None
    # With differences of 0 and 1/k only, the smallest variance for this mean, c standard errors are this mean.
    spread = math.sqrt(agreed / 4 - agreed**2)
    assert agreed == pytest.approx(T[29] * spread / math.sqrt(30), rel=1e-4)
    assert detectable_difference_alike(np.ones((30, 4), dtype=bool)) == agreed


def test_few_questions_see_nothing() -> None:
    # Five differences of one sign have p = 2/32, six 2/64.
    assert detectable_difference(np.full(5, 0.25), 4) is None
    six = np.array([0.25, 0.5, 0.25, 0.5, 0.25, 0.25])
    expected = T[5] * float(np.std(six, ddof=1)) / math.sqrt(6) + 1 / 24
    assert detectable_difference(six, 4) == pytest.approx(max(expected, T[5] ** 2 / 4 / (6 + T[5] ** 2)), rel=0.01)
    assert detectable_difference(np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]), 1) is None


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="no question"):
        mean_with_interval(np.array([]), seed=0)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(np.ones(3), np.ones(4), seed=0)
