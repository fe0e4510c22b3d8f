"""Figures of one arm from its answers, at an equal token budget and at an equal slot budget.

Answers are generated once, under limits that reach both budgets, and cut to each budget here. Generation is causal and
its noise is keyed by slot and place, so a cut answer equals the answer that the smaller limit would have given. Terms:

- *real tokens* of an answer: its tokens and the end token, which the budget counts too; never PADs;
- *slots*: decode steps; a regular step is a slot of one token;
- an answer is right only if it ended within the budget. A cut answer is wrong, whatever it boxed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipo_core.data.problems import Problem
from pipo_core.evaluate.statistics import (
    Estimate,
    Floats,
    average_at_k,
    detectable_difference,
    detectable_difference_alike,
    mean_with_interval,
    means_with_intervals,
    paired_difference,
    pass_at_k,
)

Unit = Literal["tokens", "slots"]
AnswerRow = Mapping[str, Any]
"""A line of an answer file with its verdict, see `pipo_core.data.answers`."""


@dataclass(frozen=True)
class Cut:
    """An answer within a budget.

    Attributes:
        tokens: real tokens, the end token included.
        slots: decode steps; None where the engine does not report them.
        drafts: drafts that were offered; None where the engine does not report them.
        finished: whether it ended within the budget.
        correct: whether it ended within the budget and is right.
        undecided: whether it counts as wrong because its grading broke off.
        odd_prompt: whether the prompt has an odd number of tokens; None where that is not known.
    """

    tokens: int
    slots: int | None
    drafts: int | None
    finished: bool
    correct: bool
    undecided: bool = False
    odd_prompt: bool | None = None

    @property
    def kept(self) -> int | None:
        """Number of drafts that were kept: the tokens beyond one per slot."""
        return None if self.slots is None else self.tokens - self.slots


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer as scores need it, without its text: an evaluation holds tens of thousands.

    Attributes:
        problem: the question's name.
        sample: the number of the sample.
        ended: whether it ended by itself.
        correct: the verdict.
        undecided: whether grading broke off.
        tokens: real tokens, the end token included.
        steps: real tokens written up to the end of each step, cumulative; None where the engine does not report steps.
        drafts: drafts that were offered; None where the engine does not report them.
        prompt_tokens: of the prompt; None where that is not known.
        error: why there is no answer; None if there is one.
        session: names what one engine answered from its opening to its end; None in files of older versions.
        at_s: seconds from the beginning of the session to the answer's end.
    """

    problem: str
    sample: int
    ended: bool
    correct: bool
    undecided: bool
    tokens: int
    steps: NDArray[np.int32] | None
    drafts: int | None
    prompt_tokens: int | None
    error: str | None
    session: str | None
    at_s: float

    @classmethod
    def of(cls, row: AnswerRow) -> "ScoredAnswer":
        """Return the answer of a line of an answer file with its verdict."""
        counts = row.get("slot_token_counts")
        failed = row["finish_reason"] == "error"
        steps = None if counts is None and not failed else np.cumsum(np.asarray(counts or [], dtype=np.int32))
        return cls(
            problem=row["problem"],
            sample=row["sample"],
            ended=row["finish_reason"] == "stop",
            correct=bool(row["correct"]),
            undecided=bool(row.get("undecided")),
            tokens=_written(row) if steps is None else int(steps[-1]) if len(steps) else 0,
            steps=steps,
            drafts=None if counts is None else row["drafts"],
            prompt_tokens=row.get("prompt_tokens"),
            error=str(row.get("error")) if failed else None,
            session=row.get("session"),
            at_s=float(row.get("at_s") or 0.0),
        )


def _written(row: AnswerRow) -> int:
    """Return the number of real tokens; older versions did not count the end token apart."""
    return int(row["written"] if "written" in row else row["tokens"])


def cut(answer: ScoredAnswer, unit: Unit, limit: int) -> Cut:
    """Return the first `limit` tokens or slots of an answer."""
    odd = None if answer.prompt_tokens is None else answer.prompt_tokens % 2 == 1
    steps = answer.steps
    if steps is None:
        finished = answer.ended and answer.tokens <= limit
        kept = min(answer.tokens, limit)
        return Cut(kept, None, None, finished, finished and answer.correct, answer.undecided, odd)
    slots = len(steps)
    if unit == "slots":
        within, kept_slots = slots <= limit, min(slots, limit)
        tokens = int(steps[kept_slots - 1]) if kept_slots else 0
    else:
        within, tokens = answer.tokens <= limit, min(answer.tokens, limit)
        # A step belongs to the answer if fewer than `limit` tokens stood before it.
        kept_slots = min(slots, int(np.searchsorted(steps, limit)) + 1) if slots else 0
    finished = within and answer.ended
    # A method makes the same number of drafts in every slot, with two exceptions: a last slot whose first token ended
    # the text has none, and eagle makes none at the prompt.
    offered = answer.drafts or 0
    per_slot = -(-offered // slots) if slots else 0
    drafts = min(kept_slots * per_slot, offered)
    return Cut(tokens, kept_slots, drafts, finished, finished and answer.correct, answer.undecided, odd)


@dataclass(frozen=True)
class Outcome:
    """All answers of an arm within one budget, ``[Q, n]`` by problem and sample."""

    cuts: list[list[Cut]]

    def correct(self) -> NDArray[np.bool_]:
        """Return which answers are right, ``[Q, n]``."""
        return np.array([[answer.correct for answer in samples] for samples in self.cuts], dtype=bool)

    def average(self) -> Floats:
        """Return the share of right answers of each problem, ``[Q]``."""
        return average_at_k(self.correct())

    def answers(self) -> Iterator[Cut]:
        """Yield all answers, problem by problem."""
        for samples in self.cuts:
            yield from samples


def outcome(rows: Sequence[ScoredAnswer], problems: Sequence[Problem], samples: int, unit: Unit, limit: int) -> Outcome:
    """Return the answers by problem and sample, each cut to the budget.

    Raises:
        KeyError: if an answer is absent.
    """
    found = {(row.problem, row.sample): row for row in rows}
    return Outcome([[cut(found[problem.id, sample], unit, limit) for sample in range(samples)] for problem in problems])


def figures(result: Outcome, problems: Sequence[Problem], baseline: Outcome | None, seed: int) -> dict[str, Any]:
    """Return the figures of one arm at one budget, ready for JSON.

    Args:
        result: the arm's answers.
        problems: the problems, in the order of ``result``.
        baseline: the baseline's answers to the same problems; None for no comparison.
        seed: seed of the bootstrap.

    Returns:
        - ``avg``, and ``pass`` by k: estimates {value, low, high};
        - ``difference``: estimate of avg minus the baseline's avg, paired by problem, with its p-value {value, low,
          high, p}; None without a baseline;
        - ``detectable``: the smallest true difference of avg that a comparison of this size shows with 80 % power at
          the 5 % level; from the differences to the baseline, without one from this arm's answers; None if there is
          none;
        - ``levels``: number of problems and avg of each named level;
        - ``parity``: the same for prompts with an odd and an even number of tokens; empty if that is not known;
        - ``tokens_per_slot``: real tokens over slots of all answers; None if slots are not reported;
        - ``drafts``, ``drafts_kept``: number of offered drafts, and the share kept (None without drafts);
        - ``mean_tokens``: real tokens per answer;
        - ``finished``: share of answers that ended within the budget;
        - ``undecided``: number of answers that count as wrong because their grading broke off.
    """
    average = result.average()
    samples = len(result.cuts[0])
    counts = np.rint(average * samples).astype(np.int64)
    passes = np.stack([pass_at_k(samples, counts, k) for k in range(1, samples + 1)], axis=1)
    by_k = means_with_intervals(passes, seed=seed)
    answers = list(result.answers())
    tokens, slots = sum(a.tokens for a in answers), sum(a.slots or 0 for a in answers)
    drafts, kept = sum(a.drafts or 0 for a in answers), sum(a.kept or 0 for a in answers)
    return {
        "avg": by_k[0].as_dict(),  # pass@1 of one problem is its share of right answers
        "pass": {str(k): estimate.as_dict() for k, estimate in enumerate(by_k, start=1)},
        "difference": _difference_to_baseline(average, baseline, seed),
        "detectable": (
            detectable_difference_alike(result.correct())
            if baseline is None
            else detectable_difference(average - baseline.average(), samples)
        ),
        "levels": _level_averages(average, problems, seed),
        "parity": _parity_averages(result, average, seed),
        "tokens_per_slot": tokens / slots if slots else None,
        "drafts": drafts,
        "drafts_kept": kept / drafts if drafts else None,
        "mean_tokens": tokens / len(answers),
        "finished": sum(a.finished for a in answers) / len(answers),
        "undecided": sum(a.undecided for a in answers),
    }


def _difference_to_baseline(average: Floats, baseline: Outcome | None, seed: int) -> dict[str, float] | None:
    """Return the mean paired difference with its interval and p-value; None without a baseline."""
    if baseline is None:
        return None
    return paired_difference(average, baseline.average(), seed=seed).as_dict()


def _parity_averages(result: Outcome, average: Floats, seed: int) -> dict[str, dict[str, Any]]:
    """Return the number of problems and the average by the prompt's parity; empty if its length is not known.

    Only an even prompt fills its last slot, so a pair model may have learned one kind better than the other.
    """
    odd = [samples[0].odd_prompt for samples in result.cuts]
    if None in odd:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, wanted in (("odd", True), ("even", False)):
        chosen = np.array([parity is wanted for parity in odd])
        if chosen.any():
            avg = mean_with_interval(average[chosen], seed=seed).as_dict()
            found[name] = {"problems": int(chosen.sum()), "avg": avg}
    return found


def _level_averages(average: Floats, problems: Sequence[Problem], seed: int) -> dict[str, dict[str, Any]]:
    """Return the number of problems and the average of each named level."""
    levels: dict[str, dict[str, Any]] = {}
    for level in sorted({problem.level for problem in problems} - {""}):
        chosen = np.array([problem.level == level for problem in problems])
        estimate: Estimate = mean_with_interval(average[chosen], seed=seed)
        levels[level] = {"problems": int(chosen.sum()), "avg": estimate.as_dict()}
    return levels
