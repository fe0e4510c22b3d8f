"""From the answers of one arm to its figures, at an equal token budget and at an equal slot budget.

Answers are generated once, under the larger of the two limits, and cut down to each budget here. Generation
is causal and its noise is keyed by position, so a cut answer is the one that the smaller limit would have
given. Words:

- *real tokens* of an answer: its tokens and the end token, which costs a place of the budget too; never PADs;
- *slots*: decode steps (a regular step is a slot of one token);
- an answer counts as right only if it has ended within the budget: cut answers are wrong, whatever they
  boxed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from pipo_core.data.problems import Problem
from pipo_core.evaluate.statistics import (
    Estimate,
    Floats,
    average_at_k,
    mean_with_interval,
    means_with_intervals,
    paired_difference,
    pass_at_k,
)

Unit = Literal["tokens", "slots"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cut:
    """An answer within a budget.

    Attributes:
        tokens: real tokens, the end token included.
        slots: decode steps; None where the engine does not report them.
        drafts: drafts that were offered; None where the engine does not report them.
        finished: whether it ended within the budget.
        correct: whether it ended, and right.
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
        """Drafts that were kept: the tokens beyond one a slot."""
        return None if self.slots is None else self.tokens - self.slots


def counts_steps(row: Row) -> bool:
    """Return whether an answer's engine reported what each step wrote."""
    return row.get("slot_token_counts") is not None


def cut(row: Row, unit: Unit, limit: int) -> Cut:
    """Return what is left of an answer after `limit` tokens or slots."""
    ended = row["finish_reason"] == "stop"
    prompt = row.get("prompt_tokens")
    undecided, odd = bool(row.get("undecided")), None if prompt is None else prompt % 2 == 1
    if not counts_steps(row):
        finished = ended and row["written"] <= limit
        return Cut(min(row["written"], limit), None, None, finished, finished and bool(row["correct"]), undecided, odd)
    reached = list(accumulate(row["slot_token_counts"]))
    total, slots = (reached[-1] if reached else 0), len(reached)
    if unit == "slots":
        within = slots <= limit
        kept_slots = min(slots, limit)
        tokens = reached[kept_slots - 1] if kept_slots else 0
    else:
        within = total <= limit
        kept_slots = sum(1 for before in [0, *reached[:-1]] if before < limit) if reached else 0
        tokens = min(total, limit)
    finished = within and ended
    # A method makes the same number of drafts in every slot, but in a last one whose first token ended the text, and
    # eagle none at the prompt.
    per_slot = -(-row["drafts"] // len(reached)) if reached else 0
    drafts = min(kept_slots * per_slot, row["drafts"])
    return Cut(tokens, kept_slots, drafts, finished, finished and bool(row["correct"]), undecided, odd)


@dataclass(frozen=True)
class Outcome:
    """All answers of an arm within one budget, [Q, n] by question and sample."""

    cuts: list[list[Cut]]

    def average(self) -> Floats:
        """Share of right answers of each question, [Q]."""
        return average_at_k(np.array([[answer.correct for answer in row] for row in self.cuts], dtype=bool))

    def answers(self) -> Iterator[Cut]:
        """All answers, question by question."""
        for row in self.cuts:
            yield from row


def outcome(rows: Sequence[Row], problems: Sequence[Problem], samples: int, unit: Unit, limit: int) -> Outcome:
    """Arrange the answers by problem and sample and cut each. Raises KeyError where one is absent."""
    found = {(row["problem"], row["sample"]): row for row in rows}
    return Outcome([[cut(found[problem.id, sample], unit, limit) for sample in range(samples)] for problem in problems])


def figures(result: Outcome, problems: Sequence[Problem], baseline: Outcome | None, seed: int) -> dict[str, Any]:
    """Return the figures of one arm at one budget, JSON-able.

    Args:
        result: the arm's answers within the budget.
        problems: in the order of `result`.
        baseline: the baseline's answers, for the paired difference; None for none.
        seed: of the bootstrap.

    Returns:
        ``avg`` and ``pass`` (by k) as estimates {value, low, high}; ``difference``, one of avg minus the baseline's, or
        None; ``levels`` and ``parity``, problems and avg of each named level, and of prompts of odd and even length;
        ``tokens_per_slot``, real tokens over slots of all answers; ``drafts`` offered and ``drafts_kept``, the share
        kept (None for no draft); ``mean_tokens``, real tokens an answer; ``finished``, the share that ended within the
        budget; ``undecided``, how many answers count as wrong because their grading broke off.
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
        "avg": by_k[0].as_dict(),  # pass@1 of one question is its share of right answers
        "pass": {str(k): estimate.as_dict() for k, estimate in enumerate(by_k, start=1)},
        "difference": _difference(average, baseline, seed),
        "levels": _levels(average, problems, seed),
        "parity": _by_parity(result, average, seed),
        "tokens_per_slot": tokens / slots if slots else None,
        "drafts": drafts,
        "drafts_kept": kept / drafts if drafts else None,
        "mean_tokens": tokens / len(answers),
        "finished": sum(a.finished for a in answers) / len(answers),
        "undecided": sum(a.undecided for a in answers),
    }


def _difference(average: Floats, baseline: Outcome | None, seed: int) -> dict[str, float] | None:
    if baseline is None:
        return None
    return paired_difference(average, baseline.average(), seed=seed).as_dict()


def _by_parity(result: Outcome, average: Floats, seed: int) -> dict[str, dict[str, Any]]:
    """Return problems and avg of prompts with an odd and an even number of tokens; empty where that is not known.

    Only an even prompt fills its last slot, so a pair model may have learned one kind better than the other.
    """
    odd = [row[0].odd_prompt for row in result.cuts]
    if None in odd:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, wanted in (("odd", True), ("even", False)):
        chosen = np.array([parity is wanted for parity in odd])
        if chosen.any():
            avg = mean_with_interval(average[chosen], seed=seed).as_dict()
            found[name] = {"problems": int(chosen.sum()), "avg": avg}
    return found


def _levels(average: Floats, problems: Sequence[Problem], seed: int) -> dict[str, dict[str, Any]]:
    levels: dict[str, dict[str, Any]] = {}
    for level in sorted({problem.level for problem in problems} - {""}):
        chosen = np.array([problem.level == level for problem in problems])
        estimate: Estimate = mean_with_interval(average[chosen], seed=seed)
        levels[level] = {"problems": int(chosen.sum()), "avg": estimate.as_dict()}
    return levels
