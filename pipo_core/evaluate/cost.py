"""What answers cost: steps, seconds of the engine, and bytes that its memory had to move at least.

Answers get longer when a model is changed, so the time of a token does not say what an answer costs, and an answer that
is wrong is paid for, too. So costs are per answer and per right answer::

    cost of a right answer = cost of all answers / number of right answers

Bytes are an estimate from shapes (`pipo_core.decode.traffic`). A step reads the weights once for all sequences that run
together and each sequence's own keys, values and states; prompts, which the arithmetic limits, are not counted. With a
cache that grows evenly, the bytes of an answer of S steps are S times those of a step at the mean context.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import step_bytes
from pipo_core.errors import PipoError
from pipo_core.evaluate.scores import Outcome, ScoredAnswer, Unit
from pipo_core.evaluate.statistics import Floats
from pipo_core.model.checkpoint import load_config
from pipo_core.model.sizes import BF16, Widths
from pipo_core.recipes.methods import Decoding

CURVE_POINTS = 5
"""Limits of the curves: the budget and its halves, 2K to 32K for a budget of 32K."""


@dataclass(frozen=True)
class Shape:
    """What the bytes of an arm's steps depend on.

    Attributes:
        config: the model's shape.
        decoding: how it decodes.
        batch: sequences that share the weights of a step.
        widths: bytes of each weight, and of each key and value.
    """

    config: Qwen3_5TextConfig
    decoding: Decoding
    batch: int
    widths: Widths = BF16

    @classmethod
    def of(cls, ckpt: Path | None, decoding: Decoding, batch: int, widths: Widths = BF16) -> "Shape | None":
        """Return the shape of a checkpoint's steps; None if nothing is known of it, or it is of another family."""
        if ckpt is None:
            return None
        try:
            return cls(load_config(ckpt), decoding, batch, widths)
        except PipoError:
            return None

    def bytes_of(self, prompt_tokens: int, steps: Sequence[int]) -> float:
        """Return the bytes of an answer.

        Args:
            prompt_tokens: of its prompt.
            steps: tokens written up to the end of each step.
        """
        if not len(steps):
            return 0.0
        written = int(steps[-1])
        before = prompt_tokens + (sum(map(int, steps)) - written) / len(steps)
        options: dict[str, int] = {} if self.decoding.drafts is None else {"drafts": self.decoding.drafts}
        load = StepLoad(
            context=round(before),
            batch=self.batch,
            acceptance=min(1.0, written / len(steps) - 1),
            draft_vocab=self.decoding.draft_vocab,
            **options,
        )
        of_a_step = step_bytes(self.config, self.decoding.method, load, widths=self.widths)
        return len(steps) * of_a_step / self.batch


def wall_seconds(answers: Sequence[ScoredAnswer]) -> float | None:
    """Return how long an arm's engine was busy with a suite, over all sessions that it took; None if not recorded."""
    last: dict[str, float] = defaultdict(float)
    for answer in answers:
        if answer.error is None and answer.session is None:
            return None
        if answer.session is not None:
            last[answer.session] = max(last[answer.session], answer.at_s)
    return sum(last.values()) or None


def answer_bytes(answers: Sequence[ScoredAnswer], shape: Shape | None) -> Floats | None:
    """Return the bytes of each answer, ``[N]``; None if the shape or the steps are not known."""
    if shape is None or any(answer.steps is None for answer in answers):
        return None
    return np.array(
        [0.0 if one.steps is None else shape.bytes_of(one.prompt_tokens or 0, one.steps.tolist()) for one in answers]
    )


def costs(
    result: Outcome, answers: Sequence[ScoredAnswer], seconds: float | None, moved: Floats | None
) -> dict[str, Any]:
    """Return what answers within a budget cost, ready for JSON.

    An answer that the budget cuts costs what it had cost up to there: seconds and bytes are taken to be spread evenly
    over its steps, or its tokens where steps are not known.

    Args:
        result: the answers within the budget, in the order of ``answers``.
        answers: the same answers, whole.
        seconds: of the engine for all whole answers, see `wall_seconds`.
        moved: bytes of each whole answer, see `answer_bytes`.

    Returns:
        - ``answer``: mean tokens, steps, seconds and bytes of an answer; None where not known;
        - ``right``: the same over the number of right answers; None if no answer is right;
        - ``cut``: number of answers that did not end within the budget.
    """
    cuts = list(result.answers())
    right = sum(one.correct for one in cuts)
    whole = np.array([len(one.steps) if one.steps is not None else one.tokens for one in answers], dtype=np.float64)
    kept = np.array([one.tokens if one.slots is None else one.slots for one in cuts], dtype=np.float64)
    share = np.divide(kept, whole, out=np.zeros_like(kept), where=whole > 0)
    totals: dict[str, float | None] = {
        "tokens": float(sum(one.tokens for one in cuts)),
        "steps": None if any(one.slots is None for one in cuts) else float(kept.sum()),
        "seconds": None if seconds is None or not whole.sum() else seconds * float(kept.sum() / whole.sum()),
        "bytes": None if moved is None else float((moved * share).sum()),
    }
    return {
        "answer": {name: None if total is None else total / len(cuts) for name, total in totals.items()},
        "right": {name: None if total is None or not right else total / right for name, total in totals.items()},
        "cut": sum(not one.finished for one in cuts),
    }


def curves(
    answers: Mapping[str, Sequence[ScoredAnswer]],
    moved: Mapping[str, Floats | None],
    budgets: Mapping[Unit, int],
    reference: str,
) -> dict[str, Any]:
    """Return each arm's accuracy over limits of an answer, in tokens, in steps and in bytes, ready for JSON.

    Generation is causal, so an answer within a limit is right if it is right as a whole and costs no more. A limit in
    bytes is what ``reference`` reads for that many tokens after a prompt of mean length.

    Args:
        answers: of each label.
        moved: bytes of each answer, by label.
        budgets: the token budget and, if steps are known, the slot budget.
        reference: label of the arm that limits in bytes are taken from.

    Returns:
        By ``tokens``, ``slots`` and ``bytes`` (where known): ``limits``, and the accuracies by label, one a limit. Arms
        whose bytes are not known are not in the last.
    """
    found: dict[str, Any] = {}
    for unit, budget in budgets.items():
        limits = _halves(budget)
        found[unit] = {
            "limits": limits,
            "arms": {
                label: [_right_within(rows, _sizes(rows, unit), one) for one in limits]
                for label, rows in answers.items()
            },
        }
    base = moved.get(reference)
    if base is not None:
        limits = _halves(budgets["tokens"])
        tokens = np.array([answer.tokens for answer in answers[reference]], dtype=np.float64)
        per_token = float(base.sum() / tokens.sum()) if tokens.sum() else 0.0
        found["bytes"] = {
            "limits": limits,
            "of": reference,
            "bytes": [per_token * limit for limit in limits],
            "arms": {
                label: [_right_within(rows, sizes, per_token * limit) for limit in limits]
                for label, rows in answers.items()
                if (sizes := moved[label]) is not None
            },
        }
    return found


def _halves(budget: int) -> list[int]:
    """Return the budget and its halves, rising, each at least 1."""
    return sorted({max(1, budget >> shift) for shift in range(CURVE_POINTS)})


def _sizes(answers: Sequence[ScoredAnswer], unit: Unit) -> Floats:
    sizes = [one.tokens if unit == "tokens" or one.steps is None else len(one.steps) for one in answers]
    return np.array(sizes, dtype=np.float64)


def _right_within(answers: Sequence[ScoredAnswer], sizes: Floats, limit: float) -> float:
    """Return the share of answers that ended, are right and are no larger than a limit."""
    right = np.array([one.ended and one.correct for one in answers], dtype=bool)
    return float((right & (sizes <= limit)).mean())
