"""`pipo eval`: several arms answer the same problems with the same noise, compared at equal budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import Asking, all_questions, ask, grade
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
    """One row of the comparison: an arm with one way of decoding."""

    name: str
    ckpt: Path
    decoding: Decoding

    @property
    def label(self) -> str:
        """The arm's name in files, tables and plots."""
        return self.decoding.label(self.name)


def run_eval(
    recipe: EvalRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: OpenEngine = open_engine,
) -> dict[str, Any]:
    """Ask, grade and compare; return what `out/results.json` holds.

    Every answer is a line of `out/answers/<label>.jsonl` as soon as it is complete, and every verdict another one.
    Called again, only what is missing is made. The figures of each arm (`scores.figures`) are given at the token budget
    and, where every engine reports its steps, at the slot budget (`both_budgets`).

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        reporter: hears of progress and trouble.
        open_engine: opens the engines that answer.

    Raises:
        UsageError: if the baseline is an arm with several thresholds.
        PipoError: if an engine loses answers.
    """
    reporter = reporter or SilentReporter()
    runs = [ArmRun(arm.name, Path(arm.ckpt), decoding) for arm in recipe.arms for decoding in arm.decodings()]
    baseline = _baseline(recipe, runs)
    with SUITES[recipe.suite]() as suite:
        problems = suite.problems(recipe)
        answers = {run.label: _answers(recipe, run, suite, problems, out, reporter, open_engine) for run in runs}
    undecided = sum(row["undecided"] for rows in answers.values() for row in rows)
    if undecided:
        reporter.warn(f"{undecided} answers count as wrong because their grading broke off twice")
    results = _results(recipe, runs, baseline, problems, answers)
    write_json(out / RESULTS, results)
    return results


def both_budgets(budget: Budget) -> dict[Unit, int]:
    """Return the token and the slot budget; one that the recipe leaves out equals the other in number.

    Both are always scored, because which one is held equal decides a comparison of methods.
    """
    number = budget.tokens or budget.slots
    if number is None:
        raise ValueError("a budget has a limit")
    return {"tokens": budget.tokens or number, "slots": budget.slots or number}


def limits(budgets: Mapping[Unit, int], decoding: Decoding, drafts: int) -> tuple[int, int]:
    """Return (most tokens, most slots) of a generation that reaches both budgets.

    A slot is one step. N tokens take at most N steps, N steps write at most N times as many tokens as a step can write.

    Args:
        budgets: the token and the slot budget.
        decoding: how the arm decodes.
        drafts: drafts a step, where the method lets one choose.
    """
    tokens, slots = budgets["tokens"], budgets["slots"]
    return max(tokens, decoding.spec.max_step_tokens(drafts) * slots), max(tokens, slots)


def _baseline(recipe: EvalRecipe, runs: Sequence[ArmRun]) -> str | None:
    if recipe.baseline is None:
        return None
    labels = [run.label for run in runs if run.name == recipe.baseline]
    if len(labels) != 1:
        raise UsageError(
            f"baseline {recipe.baseline!r} stands for {len(labels)} runs ({', '.join(labels)})",
            hint="name an arm with one threshold as the baseline",
        )
    return labels[0]


def _answers(
    recipe: EvalRecipe,
    run: ArmRun,
    suite: Suite,
    problems: Sequence[Problem],
    out: Path,
    reporter: Reporter,
    open_engine: OpenEngine,
) -> list[dict[str, Any]]:
    """Return the graded answers of one arm, problem by problem."""
    max_tokens, max_slots = limits(both_budgets(recipe.budget), run.decoding, recipe.engine.drafts)
    questions = all_questions(problems, recipe.samples)
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
        ask(log, questions, asking, open_engine=engine, reporter=reporter)
        grade(log, questions, suite.judge, label=run.label, reporter=reporter)
        return [log.row(question.key) for question in questions]


def _results(
    recipe: EvalRecipe,
    runs: Sequence[ArmRun],
    baseline: str | None,
    problems: Sequence[Problem],
    answers: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
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
