"""What samples of a model say about the model: avg@k, pass@k, paired differences, each with a 95 % interval.

The question is the unit of chance: answers to one question resemble each other, so intervals come from a
bootstrap over questions (percentile method, seeded), never over answers. Where every question has the same
score the bootstrap has nothing to draw from and would claim certainty; the exact binomial bound over
questions takes its place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
_BLOCK = 4_000_000  # question indices drawn at once: 32 MB

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
    """Share of right answers of each question, [Q], from `correct` [Q, n]; its mean over Q is avg@n."""
    shares: Floats = np.asarray(correct, dtype=np.float64).mean(axis=1)
    return shares


def pass_at_k(samples: int, correct: NDArray[np.int64], k: int) -> Floats:
    """Unbiased chance, by question [Q], that one of `k` answers is right: 1 - C(n-c, k) / C(n, k).

    `samples` is n, `correct` [Q] holds c. Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples a question, there are {samples}")
    counts = np.asarray(correct)
    if counts.size and (counts.min() < 0 or counts.max() > samples):
        raise ValueError(f"the counts of right answers must lie between 0 and {samples}")
    # C(n-c, k) / C(n, k) = prod_{j<k} (n-c-j) / (n-j); a factor that reaches 0 stays 0, as C(n-c, k) does.
    drawn = np.arange(k)
    factors = np.maximum(samples - counts[:, None] - drawn, 0) / (samples - drawn)
    result: Floats = 1.0 - factors.prod(axis=1)
    return result


def mean_with_interval(
    scores: Floats, *, seed: int, bounds: tuple[float, float] = (0.0, 1.0), resamples: int = RESAMPLES
) -> Estimate:
    """Mean of one score a question, [Q], with the percentile-bootstrap interval over questions.

    `bounds` is the range that a score can have (it closes the interval where all scores are equal). The same
    seed and Q give the same resamples. Raises ValueError for no question.
    """
    column = np.asarray(scores, dtype=np.float64)[:, None]
    return means_with_intervals(column, seed=seed, bounds=bounds, resamples=resamples)[0]


def means_with_intervals(
    scores: Floats, *, seed: int, bounds: tuple[float, float] = (0.0, 1.0), resamples: int = RESAMPLES
) -> list[Estimate]:
    """As `mean_with_interval`, for M scores of the same questions, [Q, M], drawn together."""
    scores = np.asarray(scores, dtype=np.float64)
    questions, columns = scores.shape
    if questions == 0:
        raise ValueError("there is no question to average over")
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    block = max(1, _BLOCK // questions)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(questions, size=(rows, questions))
        # How often each question is in each resample, [rows, Q]: then all M means are one product.
        cells = (drawn + questions * np.arange(rows)[:, None]).ravel()
        times = np.bincount(cells, minlength=rows * questions).reshape(rows, questions)
        means[start : start + rows] = times @ scores / questions
    lows, highs = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        _all_equal(float(column[0]), questions, bounds)
        if np.ptp(column) == 0
        else Estimate(float(column.mean()), float(low), float(high))
        for column, low, high in zip(scores.T, lows, highs, strict=True)
    ]


def paired_difference(scores: Floats, baseline: Floats, *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean of `scores - baseline`, both [Q] over the same questions in the same order, with its interval.

    Raises ValueError where the lengths differ.
    """
    if len(scores) != len(baseline):
        raise ValueError(f"{len(scores)} questions cannot be paired with {len(baseline)}")
    differences = np.asarray(scores, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    return mean_with_interval(differences, seed=seed, bounds=(-1.0, 1.0), resamples=resamples)


def _all_equal(score: float, questions: int, bounds: tuple[float, float]) -> Estimate:
    """Clopper-Pearson with no exception in Q questions: at most a share 1 - (α/2)^(1/Q) of all can differ."""
    differing = 1 - ((1 - LEVEL) / 2) ** (1 / questions)
    low, high = bounds
    return Estimate(score, score - differing * (score - low), score + differing * (high - score))
