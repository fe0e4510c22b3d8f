"""`pipo eval`: several arms answer the same problems with the same noise and are compared at equal budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import Asking, ask, grade, wanted_answers
from pipo_core.data.problems import Problem
from pipo_core.engine import open_engine
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import UsageError
from pipo_core.evaluate.scores import Outcome, Unit, counts_steps, figures, outcome
from pipo_core.evaluate.suites import SUITES, Suite
from pipo_core.files import write_json
from pipo_core.recipes.common import Budget
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.reporting import Reporter, SilentReporter

RESULTS = "results.json"
ANSWERS = "answers"


@dataclass(frozen=True)
class ArmRun:
    """One entry of the comparison: an arm with one decoding."""

    name: str
    ckpt: Path
    decoding: Decoding

    @property
    def label(self) -> str:
        """The entry's name in files, tables and plots."""
        return self.decoding.label(self.name)


def run_eval(
    recipe: EvalRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: OpenEngine = open_engine,
) -> dict[str, Any]:
    """Ask, grade and compare; return the content of `out/results.json`.

    Each answer is appended to `out/answers/<label>.jsonl` as soon as it is complete, and so is each verdict. A second
    call makes only what is missing. Every arm has figures (`scores.figures`) at the token budget and, if all engines
    report their steps, at the slot budget (`both_budgets`).

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress and warnings.
        open_engine: opens the engines that answer.

    Raises:
        UsageError: if the baseline is an arm with several thresholds.
        MissingInputError: if the benchmark's file does not hold the problems.
        PipoError: if an engine ends before every request was answered.
    """
    reporter = reporter or SilentReporter()
    runs = [ArmRun(arm.name, Path(arm.ckpt), decoding) for arm in recipe.arms for decoding in arm.decodings()]
    baseline = _baseline_label(recipe, runs)
    with SUITES[recipe.suite]() as suite:
        problems = suite.problems(recipe)
        answers = {
            run.label: _answer_and_grade(recipe, run, suite, problems, out, reporter, open_engine) for run in runs
        }
    undecided = sum(row["undecided"] for rows in answers.values() for row in rows)
    if undecided:
        reporter.warn(f"{undecided} answers count as wrong because their grading broke off twice")
    results = _compare_arms(recipe, runs, baseline, problems, answers)
    write_json(out / RESULTS, results)
    return results


def both_budgets(budget: Budget) -> dict[Unit, int]:
    """Return the token budget and the slot budget; a budget that the recipe leaves out equals the other in number.

    Both are scored, because a comparison of methods depends on which of them is held equal.

    Raises:
        ValueError: if the recipe has neither.
    """
    number = budget.tokens or budget.slots
    if number is None:
        raise ValueError("a budget needs tokens or slots")
    return {"tokens": budget.tokens or number, "slots": budget.slots or number}


def limits(budgets: Mapping[Unit, int], decoding: Decoding) -> tuple[int, int]:
    """Return ``(max_tokens, max_slots)`` of a generation that is long enough for both budgets.

    A slot is one step. N tokens take at most N steps; N steps write at most N times the most tokens of a step.

    Args:
        budgets: the token and the slot budget.
        decoding: how the arm decodes.
    """
    tokens, slots = budgets["tokens"], budgets["slots"]
    return max(tokens, decoding.max_step_tokens * slots), max(tokens, slots)


def _baseline_label(recipe: EvalRecipe, runs: Sequence[ArmRun]) -> str | None:
    """Return the label of the baseline's only run; None if the recipe names no baseline.

    Raises:
        UsageError: if the named arm has several thresholds.
    """
    if recipe.baseline is None:
        return None
    labels = [run.label for run in runs if run.name == recipe.baseline]
    if len(labels) != 1:
        raise UsageError(
            f"baseline {recipe.baseline!r} stands for {len(labels)} runs ({', '.join(labels)})",
            hint="name an arm with one threshold as the baseline",
        )
    return labels[0]


def _answer_and_grade(
    recipe: EvalRecipe,
    run: ArmRun,
    suite: Suite,
    problems: Sequence[Problem],
    out: Path,
    reporter: Reporter,
    open_engine: OpenEngine,
) -> list[dict[str, Any]]:
    """Return the graded answers of one run, problem by problem; answer and grade what its file lacks."""
    max_tokens, max_slots = limits(both_budgets(recipe.budget), run.decoding)
    wanted = wanted_answers(problems, recipe.samples)
    asking = Asking(
        title="eval",
        label=run.label,
        seed=recipe.seed,
        sampling=recipe.sampling,
        prompt=suite.prompt,
        max_tokens=max_tokens,
        max_slots=max_slots,
    )
    with AnswerLog(out / ANSWERS / f"{run.label}.jsonl") as log:
        engine = lambda: open_engine(run.ckpt, run.decoding, recipe.engine)  # noqa: E731
        ask(log, wanted, asking, open_engine=engine, reporter=reporter)
        grade(log, wanted, suite.judge, label=run.label, reporter=reporter)
        return [log.row(answer.key) for answer in wanted]


def _compare_arms(
    recipe: EvalRecipe,
    runs: Sequence[ArmRun],
    baseline: str | None,
    problems: Sequence[Problem],
    answers: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Return the content of `results.json` from the graded answers of each label."""
    budgets = both_budgets(recipe.budget)
    if not all(counts_steps(row) for rows in answers.values() for row in rows):
        del budgets["slots"]
    outcomes: dict[tuple[str, Unit], Outcome] = {
        (label, unit): outcome(rows, problems, recipe.samples, unit, limit)
        for label, rows in answers.items()
        for unit, limit in budgets.items()
    }

    def arm(run: ArmRun) -> dict[str, Any]:
        return {
            "arm": run.name,
            "label": run.label,
            "method": run.decoding.method,
            "tau": run.decoding.tau,
            **({} if run.decoding.acceptance is None else {"acceptance": run.decoding.acceptance}),
            "ckpt": str(run.ckpt),
            "budgets": {
                unit: figures(
                    outcomes[run.label, unit],
                    problems,
                    None if baseline in (None, run.label) else outcomes[baseline, unit],
                    recipe.seed,
                )
                for unit in budgets
            },
        }

    return {
        "kind": "eval",
        "suite": recipe.suite,
        "problems": len(problems),
        "samples": recipe.samples,
        "seed": recipe.seed,
        "sampling": recipe.sampling.model_dump(mode="json"),
        "budget": budgets,
        "baseline": baseline,
        "arms": [arm(run) for run in runs],
    }
