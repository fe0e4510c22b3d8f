"""The results of one suite: each arm's figures, costs and failures, and its differences to the baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipo_core.data.problems import Problem
from pipo_core.evaluate.cost import Shape, answer_bytes, costs, curves, wall_seconds
from pipo_core.evaluate.plan import ArmRun, Plan, SuiteRun, sampling_for
from pipo_core.evaluate.scores import Outcome, ScoredAnswer, Unit, figures, outcome
from pipo_core.model.sizes import BF16, INT8
from pipo_core.recipes.common import EngineSettings, TorchSettings
from pipo_core.recipes.evaluate import EvalRecipe

MOST_FAILED = 20
"""Failed answers that results name; all are counted."""


def compare_arms(
    recipe: EvalRecipe,
    plan: Plan,
    suite: SuiteRun,
    answers: Mapping[str, Sequence[ScoredAnswer]],
) -> dict[str, Any]:
    """Return the results of one suite from the graded answers of each label."""
    problems: list[Problem] = suite.questions.problems
    baseline = plan.baseline
    budgets = dict(suite.budgets)
    moved = {run.label: answer_bytes(answers[run.label], _shape(recipe, run)) for run in plan.runs}
    seconds = {label: wall_seconds(rows) for label, rows in answers.items()}
    if not all(answer.steps is not None for rows in answers.values() for answer in rows):
        del budgets["slots"]
    outcomes: dict[tuple[str, Unit], Outcome] = {
        (label, unit): outcome(rows, problems, suite.samples, unit, limit)
        for label, rows in answers.items()
        for unit, limit in budgets.items()
    }

    def arm(run: ArmRun) -> dict[str, Any]:
        settings = recipe.engine_of(run.arm)
        failed = [answer for answer in answers[run.label] if answer.error is not None]
        return {
            "arm": run.arm.name,
            "label": run.label,
            "method": run.decoding.method,
            "tau": run.decoding.tau,
            **({} if run.decoding.acceptance is None else {"acceptance": run.decoding.acceptance}),
            "ckpt": run.arm.ckpt,
            "engine": _engine_words(settings),
            "sampling": sampling_for(recipe, run.arm, suite).model_dump(mode="json"),
            "failed": {
                "answers": len(failed),
                "first": [
                    {"problem": one.problem, "sample": one.sample, "error": one.error} for one in failed[:MOST_FAILED]
                ],
            },
            "budgets": {
                unit: {
                    **figures(
                        outcomes[run.label, unit],
                        problems,
                        None if baseline in (None, run.label) else outcomes[baseline, unit],
                        recipe.seed,
                    ),
                    "cost": costs(outcomes[run.label, unit], answers[run.label], seconds[run.label], moved[run.label]),
                }
                for unit in budgets
            },
        }

    return {
        "suite": suite.name,
        "title": suite.named.suite.title,
        "profile": suite.named.profile_name(recipe.profile),
        "questions": suite.questions.fingerprint,
        "problems": len(problems),
        "samples": suite.samples,
        "budget": budgets,
        "baseline": baseline,
        "cost_batch": recipe.cost_batch,
        "curves": curves(answers, moved, budgets, baseline or plan.runs[0].label),
        "arms": [arm(run) for run in plan.runs],
    }


def _shape(recipe: EvalRecipe, run: ArmRun) -> Shape | None:
    """Return what an arm's estimated bytes are computed from: bf16, or int8 where an arm asks for it."""
    settings = recipe.engine_of(run.arm)
    quantised = isinstance(settings, TorchSettings) and settings.quantization == "int8"
    ckpt = None if run.arm.ckpt is None else Path(run.arm.ckpt)
    return Shape.of(ckpt, run.decoding, recipe.cost_batch, INT8 if quantised else BF16)


def _engine_words(settings: EngineSettings) -> dict[str, Any]:
    """Return the kind of an engine, and how many answers it writes at once: its seconds depend on it."""
    at_once = settings.batch if isinstance(settings, TorchSettings) else settings.concurrency
    return {"kind": settings.kind, "at_once": at_once}
