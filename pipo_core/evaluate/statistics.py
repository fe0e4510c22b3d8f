"""Estimates from samples of a model: avg@k, pass@k and paired differences, each with a 95 % interval.

Answers to one question are correlated. So intervals come from a seeded percentile bootstrap over questions, never over
answers. If all questions have the same score, every resample is equal and the bootstrap would claim certainty; the
exact binomial bound over questions replaces it.

A paired difference also has the p-value of a sign-flip test over questions. The smallest true difference that an
evaluation of its size would show is its minimum detectable difference.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
POWER = 0.8
"""Chance to see a difference of the minimum detectable size at the level 1 - `LEVEL`."""

RESAMPLES = 10_000
MAX_FLIPPED = 13
"""Non-zero differences up to which all sign patterns are counted; beyond, `RESAMPLES` of them are drawn."""

_MAX_INDICES = 4_000_000
"""Question indices that are sampled at once: 32 MB."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return the three numbers by name, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference, its 95 % interval and the p-value of "there is none"."""

    p: float

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers by name, for JSON."""
        return {**super().as_dict(), "p": self.p}


def average_at_k(correct: NDArray[np.bool_]) -> Floats:
    """Return the share of right answers of each question, ``[Q]``, from ``correct`` ``[Q, n]``; its mean is avg@n."""
    shares: Floats = np.asarray(correct, dtype=np.float64).mean(axis=1)
    return shares


def pass_at_k(samples: int, correct: NDArray[np.int64], k: int) -> Floats:
    """Return pass@k of each question, ``[Q]``: the unbiased estimate ``1 - C(n-c, k) / C(n, k)``.

    Args:
        samples: answers to each question, n.
        correct: right answers to each question, c, ``[Q]``.
        k: number of answers of which at least one must be right.

    Raises:
        ValueError: unless 1 ≤ k ≤ n and 0 ≤ c ≤ n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples per question, but there are {samples}")
    counts = np.asarray(correct)
    if counts.size and (counts.min() < 0 or counts.max() > samples):
        raise ValueError(f"the counts of right answers must lie between 0 and {samples}")
    # C(n-c, k) / C(n, k) = prod_{j<k} (n-c-j) / (n-j); a factor that reaches 0 stays 0, as C(n-c, k) does.
    taken = np.arange(k)
    factors = np.maximum(samples - counts[:, None] - taken, 0) / (samples - taken)
    result: Floats = 1.0 - factors.prod(axis=1)
    return result


def mean_with_interval(
    scores: Floats, *, seed: int, bounds: tuple[float, float] = (0.0, 1.0), resamples: int = RESAMPLES
) -> Estimate:
    """Return the mean of one score per question, with its bootstrap interval over questions.

    Args:
        scores: ``[Q]``.
        seed: the same seed and Q give the same resamples.
        bounds: the range of possible scores, for the exact bound if all scores are equal.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: if there is no question.
    """
    column = np.asarray(scores, dtype=np.float64)[:, None]
    return means_with_intervals(column, seed=seed, bounds=bounds, resamples=resamples)[0]


def means_with_intervals(
    scores: Floats, *, seed: int, bounds: tuple[float, float] = (0.0, 1.0), resamples: int = RESAMPLES
) -> list[Estimate]:
    """Return the means of M scores of the same questions, with their intervals, from the same resamples.

    Args:
        scores: ``[Q, M]``.
        seed: the same seed and Q give the same resamples.
        bounds: the range of possible scores, for the exact bound if all scores are equal.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: if there is no question.
    """
    scores = np.asarray(scores, dtype=np.float64)
    questions, columns = scores.shape
    if questions == 0:
        raise ValueError("there is no question to average over")
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    block = max(1, _MAX_INDICES // questions)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        indices = generator.integers(questions, size=(rows, questions))
        # `times` [rows, Q] counts each question in each resample, so one matrix product gives all M means.
        cells = (indices + questions * np.arange(rows)[:, None]).ravel()
        times = np.bincount(cells, minlength=rows * questions).reshape(rows, questions)
        means[start : start + rows] = times @ scores / questions
    lows, highs = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        _estimate_of_equal_scores(float(column[0]), questions, bounds)
        if np.ptp(column) == 0
        else Estimate(float(column.mean()), float(low), float(high))
        for column, low, high in zip(scores.T, lows, highs, strict=True)
    ]


def paired_difference(scores: Floats, baseline: Floats, *, seed: int, resamples: int = RESAMPLES) -> Difference:
    """Return the mean of ``scores - baseline`` with its interval and p-value.

    Args:
        scores: ``[Q]``.
        baseline: ``[Q]``, of the same questions in the same order.
        seed: seed of the resamples and of the drawn signs.
        resamples: number of bootstrap resamples, and of sign patterns if they are drawn.

    Raises:
        ValueError: if the lengths differ or there is no question.
    """
    if len(scores) != len(baseline):
        raise ValueError(f"{len(scores)} questions cannot be paired with {len(baseline)}")
    differences = np.asarray(scores, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    estimate = mean_with_interval(differences, seed=seed, bounds=(-1.0, 1.0), resamples=resamples)
    p = sign_flip_p(differences, seed=seed, draws=resamples)
    return Difference(estimate.value, estimate.low, estimate.high, p)


def sign_flip_p(differences: Floats, *, seed: int, draws: int = RESAMPLES) -> float:
    """Return the two-sided p-value of the sign-flip permutation test for the mean of paired differences.

    If two arms are equally good, a question's difference is as likely d as -d. So p is the share of all sign patterns
    whose absolute mean reaches the observed one. Up to `MAX_FLIPPED` non-zero differences it is exact: all patterns are
    counted. Beyond, `draws` patterns are drawn, and the observed one counts as one more: p = (1 + reached) / (1 +
    draws) is never zero, and the test keeps its level (Phipson & Smyth 2010).

    Args:
        differences: ``[Q]``.
        seed: seed of the drawn patterns.
        draws: number of drawn patterns.
    """
    sizes = np.abs(np.asarray(differences, dtype=np.float64))
    sizes = sizes[sizes > 0]
    if sizes.size == 0:
        return 1.0
    # Sums that are equal on paper may differ in the last digits.
    observed = abs(float(np.sum(differences))) - 1e-9 * float(sizes.sum())
    if sizes.size <= MAX_FLIPPED:
        patterns = np.arange(2**sizes.size)[:, None] >> np.arange(sizes.size) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sizes) >= observed))
    generator = np.random.default_rng(seed)
    reached, block = 0, max(1, _MAX_INDICES // sizes.size)
    for start in range(0, draws, block):
        signs = generator.integers(2, size=(min(block, draws - start), sizes.size), dtype=np.int8)
        reached += int(np.sum(np.abs((2 * signs - 1) @ sizes) >= observed))
    return (1 + reached) / (1 + draws)


def detectable_difference(differences: Floats, samples: int) -> float | None:
    """Return the smallest true difference that such a comparison shows with 80 % power at the 5 % level.

    The mean of Q paired differences d is about normal around the true difference δ, with standard error SE = s/√Q. The
    test shows it if |mean| > t₀.₉₇₅ SE. With δ = (t₀.₉₇₅ + t₀.₈) SE that happens in 80 % of all evaluations, and the
    other tail adds next to nothing; t are quantiles of Student's t with Q - 1 degrees, as s is estimated. (For large Q
    the factor c = t₀.₉₇₅ + t₀.₈ is 1.96 + 0.84 = 2.80.) Besides, a d is a multiple of 1/k, so the sums of all sign
    patterns lie 2/k apart and the test counts those that equal the observed one: half a step, 1/k, of the sum is lost.
    Together δ = c·s/√Q + 1/(kQ).

    The observed s can be too small: arms that agreed everywhere have s = 0. But a true difference itself makes the d
    vary. As multiples of 1/k they have d² ≥ |d|/k, so Var(d) ≥ δ/k - δ². With this variance δ = c·s/√Q has the solution
    δ = c²/k / (Q + c²). The result is the larger of the two.

    Args:
        differences: avg of one arm minus avg of the other, question by question, ``[Q]``.
        samples: answers to each question, k.

    Returns:
        The difference as a share; None if this many questions show none, see `_smallest_shown`.
    """
    spread = float(np.var(differences, ddof=1)) if len(differences) > 1 else 0.0
    return _smallest_shown(spread, len(differences), samples)


def detectable_difference_alike(correct: NDArray[np.bool_]) -> float | None:
    """Return the same for an arm and an imagined second one, from the answers of the first.

    Assumption: the second arm answers each question right with the same chance p as the first, but for a small shift
    that is the same for all questions, and its answers are independent of the first arm's. Then a paired difference
    varies only because answers are sampled, Var(d) = 2 E[p(1 - p)] / k. With x the share of right answers to a
    question, k/(k - 1) · x(1 - x) is an unbiased estimate of its p(1 - p). One answer a question does not tell p; then
    all questions are taken to be equally hard, which is the largest variance with this mean.

    Args:
        correct: ``[Q, k]``.
    """
    questions, samples = correct.shape
    shares = average_at_k(correct)
    if samples == 1:
        spread = 2 * float(shares.mean() * (1 - shares.mean()))
    else:
        spread = 2 * float(np.mean(shares * (1 - shares))) / (samples - 1)
    return _smallest_shown(spread, questions, samples)


def _smallest_shown(variance: float, questions: int, samples: int) -> float | None:
    """Return the minimum detectable difference from the variance of a question's paired difference.

    Returns:
        The difference; None if it would exceed 1, or if even differences of one sign in all questions do not reach the
        level: among the 2^Q sign patterns two are so extreme.
    """
    if 2.0 ** (1 - questions) > 1 - LEVEL:
        return None
    factor = _t_quantile((1 + LEVEL) / 2, questions - 1) + _t_quantile(POWER, questions - 1)
    step = 1 / (samples * questions)
    least = factor**2 / samples / (questions + factor**2)
    found = max(factor * math.sqrt(variance / questions) + step, least)
    return found if found <= 1 else None


def _t_quantile(share: float, degrees: int) -> float:
    """Return a quantile of Student's t by its expansion around the normal one (Abramowitz & Stegun, 26.7.5).

    The error at the quantiles used here is below 0.03 at 5 degrees of freedom and below 0.001 from 20 on.
    """
    z = NormalDist().inv_cdf(share)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _estimate_of_equal_scores(score: float, questions: int, bounds: tuple[float, float]) -> Estimate:
    """Return the Clopper-Pearson bound if no question of Q differs: at most a share ``1 - (α/2)^(1/Q)`` of all can."""
    differing = 1 - ((1 - LEVEL) / 2) ** (1 / questions)
    low, high = bounds
    return Estimate(score, score - differing * (score - low), score + differing * (high - score))
