"""Estimates from samples of a model: avg@k, pass@k and paired differences, each with a 95 % interval.

Answers to one question are correlated. So intervals come from a seeded percentile bootstrap over questions, never over
answers. If all questions have the same score, every resample is equal and the bootstrap would claim certainty; the
exact binomial bound over questions replaces it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
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


def paired_difference(scores: Floats, baseline: Floats, *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Return the mean of ``scores - baseline`` with its interval; both are ``[Q]`` over the same questions in order.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(scores) != len(baseline):
        raise ValueError(f"{len(scores)} questions cannot be paired with {len(baseline)}")
    differences = np.asarray(scores, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    return mean_with_interval(differences, seed=seed, bounds=(-1.0, 1.0), resamples=resamples)


def _estimate_of_equal_scores(score: float, questions: int, bounds: tuple[float, float]) -> Estimate:
    """Return the Clopper-Pearson bound if no question of Q differs: at most a share ``1 - (α/2)^(1/Q)`` of all can."""
    differing = 1 - ((1 - LEVEL) / 2) ** (1 / questions)
    low, high = bounds
    return Estimate(score, score - differing * (score - low), score + differing * (high - score))
