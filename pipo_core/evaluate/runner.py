"""`pipo eval`: several arms answer the same questions with the same noise and are compared at equal budgets."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import Asking, LazyEngine, WantedAnswer, ask, asked_otherwise, grade, wanted_answers
from pipo_core.data.problems import Problem
from pipo_core.engine import open_engine
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.evaluate.cost import Shape, answer_bytes, costs, curves, wall_seconds
from pipo_core.evaluate.scores import Outcome, ScoredAnswer, Unit, figures, outcome
from pipo_core.evaluate.suites import Questions, load_questions, open_judge
from pipo_core.files import write_json
from pipo_core.machine import cores
from pipo_core.recipes.common import Budget, EngineSettings, Sampling, TorchSettings, sampling_of
from pipo_core.recipes.evaluate import EvalArm, EvalRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.suites import NamedSuite, find_suites
from pipo_core.reporting import Reporter, SilentReporter

RESULTS = "results.json"
ANSWERS = "answers"
MOST_FAILED = 20
"""Failed answers that results name; all are counted."""


@dataclass(frozen=True)
class ArmRun:
    """One entry of the comparison: an arm with one decoding."""

    arm: EvalArm
    decoding: Decoding

    @property
    def label(self) -> str:
        """The entry's name in files, tables and plots."""
        return self.decoding.label(self.arm.name)


@dataclass(frozen=True)
class SuiteRun:
    """One suite with what a recipe makes of its settings.

    Attributes:
        named: the suite.
        questions: what is asked.
        samples: answers per question.
        budgets: the token budget and the slot budget.
    """

    named: NamedSuite
    questions: Questions
    samples: int
    budgets: dict[Unit, int]

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.named.name


def run_eval(
    recipe: EvalRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: OpenEngine = open_engine,
) -> dict[str, Any]:
    """Ask, grade and compare; return the content of `out/results.json`.

    Each answer is appended to `out/answers/<suite>/<label>.jsonl` as soon as it is complete, and so is each verdict. A
    second call makes only what is missing. One engine of an arm answers all suites. Every arm has figures
    (`scores.figures`) at the token budget and, if all engines report their steps, at the slot budget (`both_budgets`).

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress and warnings.
        open_engine: opens the engines that answer.

    Raises:
        UsageError: if the baseline is an arm with several thresholds, or a suite has no such profile or question.
        MissingInputError: if a file does not hold the questions.
        MachineError: if a grader lacks a library or an isolated place for programs.
        PipoError: if an engine ends before every request was answered.
    """
    reporter = reporter or SilentReporter()
    plan = _plan(recipe, reporter)
    _check_graders(recipe, plan.suites)
    for run in plan.runs:
        _answer(recipe, run, plan.suites, out, reporter, open_engine)
    return _graded(recipe, plan, out, reporter)


def run_regrade(recipe: EvalRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Forget all verdicts, grade every answer anew, and return the new content of `out/results.json`.

    Args:
        recipe: the settings of the finished evaluation.
        out: its folder.
        reporter: shows progress and warnings.

    Raises:
        MissingInputError: if a file does not hold the questions, or an answer is missing.
        MachineError: if a grader lacks a library or an isolated place for programs.
    """
    reporter = reporter or SilentReporter()
    plan = _plan(recipe, reporter)
    _check_graders(recipe, plan.suites)
    places = [(run, suite) for run in plan.runs for suite in plan.suites]
    for run, suite in places:  # all are looked at before the first verdict is forgotten
        with AnswerLog(answers_path(out, suite.name, run.label)) as log:
            _require_whole(log, wanted_answers(suite.questions.problems, suite.samples), _asking(recipe, run, suite))
    for run, suite in places:
        with AnswerLog(answers_path(out, suite.name, run.label)) as log:
            log.forget_verdicts()
    return _graded(recipe, plan, out, reporter)


def _require_whole(log: AnswerLog, wanted: Sequence[WantedAnswer], asking: Asking) -> None:
    """Check that a log has every answer, each to what is asked now.

    Raises:
        MissingInputError: if not.
    """
    absent = [answer.key for answer in wanted if answer.key not in log.answers]
    hint = "give the evaluation's own command again; it asks what is missing"
    if absent:
        raise MissingInputError(f"{log.path} lacks {len(absent)} answers, such as {absent[0]}", hint=hint)
    other = asked_otherwise(log, wanted, asking)
    if other:
        raise MissingInputError(
            f"{log.path}: {len(other)} answers, such as {other[0]}, were given to other questions than are asked now",
            hint=hint,
        )


@dataclass(frozen=True)
class _Plan:
    """What a recipe compares: each run answers each suite."""

    runs: list[ArmRun]
    baseline: str | None
    suites: list[SuiteRun]


def _plan(recipe: EvalRecipe, reporter: Reporter) -> _Plan:
    runs = [ArmRun(arm, decoding) for arm in recipe.arms for decoding in arm.decodings()]
    baseline = _baseline_label(recipe, runs)
    return _Plan(runs, baseline, [_suite_run(recipe, named, reporter) for named in find_suites(recipe.suite)])


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
    labels = [run.label for run in runs if run.arm.name == recipe.baseline]
    if len(labels) != 1:
        raise UsageError(
            f"baseline {recipe.baseline!r} stands for {len(labels)} runs ({', '.join(labels)})",
            hint="name an arm with one threshold as the baseline",
        )
    return labels[0]


def _suite_run(recipe: EvalRecipe, named: NamedSuite, reporter: Reporter) -> SuiteRun:
    path = recipe.benchmark.get(named.name)
    questions = load_questions(named, None if path is None else Path(path), recipe.profile, recipe.problems, reporter)
    return SuiteRun(
        named,
        questions,
        recipe.samples or named.suite.samples,
        both_budgets(recipe.budget or named.suite.budget),
    )


def _check_graders(recipe: EvalRecipe, suites: Sequence[SuiteRun]) -> None:
    """Open each suite's grader once: what it lacks is told before the first answer, not hours later."""
    for suite in suites:
        with open_judge(suite.named.profile(recipe.profile).grader, 1):
            pass


def _asking(recipe: EvalRecipe, run: ArmRun, suite: SuiteRun) -> Asking:
    max_tokens, max_slots = limits(suite.budgets, run.decoding)
    return Asking(
        title="eval",
        label=f"{suite.name} {run.label}",
        seed=recipe.seed,
        sampling=_sampling(recipe, run.arm, suite),
        prompt=lambda problem: [{"role": "user", "content": problem.question}],
        max_tokens=max_tokens,
        max_slots=max_slots,
        whole=False,
        excuse=True,
    )


def _sampling(recipe: EvalRecipe, arm: EvalArm, suite: SuiteRun) -> Sampling:
    """Return how an arm's tokens are sampled: as the arm says, else the recipe, else the suite."""
    chosen = next(one for one in (arm.sampling, recipe.sampling, suite.named.suite.sampling) if one is not None)
    return sampling_of(chosen)


def answers_path(out: Path, suite: str, label: str) -> Path:
    """Return the file of an arm's answers to a suite, in an evaluation's folder."""
    return out / ANSWERS / suite / f"{label}.jsonl"


def _answer(
    recipe: EvalRecipe,
    run: ArmRun,
    suites: Sequence[SuiteRun],
    out: Path,
    reporter: Reporter,
    open_engine: OpenEngine,
) -> None:
    """Append the answers that an arm's files lack, to all suites with one engine."""
    settings = recipe.engine_of(run.arm)
    ckpt = None if run.arm.ckpt is None else Path(run.arm.ckpt)
    with LazyEngine(lambda: open_engine(ckpt, run.decoding, settings)) as engine:
        for suite in suites:
            with AnswerLog(answers_path(out, suite.name, run.label)) as log:
                wanted = wanted_answers(suite.questions.problems, suite.samples)
                ask(log, wanted, _asking(recipe, run, suite), engine=engine, reporter=reporter)


def _graded(recipe: EvalRecipe, plan: _Plan, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Append the verdicts that are missing, and write and return the results."""
    workers = recipe.code_workers or cores()
    found = []
    for suite in plan.suites:
        grader = suite.named.profile(recipe.profile).grader
        answers: dict[str, list[ScoredAnswer]] = {}
        with ExitStack() as judging:
            judge = judging.enter_context(open_judge(grader, workers))
            at_once = workers if grader.kind == "code" else 1
            for run in plan.runs:
                wanted = wanted_answers(suite.questions.problems, suite.samples)
                with AnswerLog(answers_path(out, suite.name, run.label)) as log:
                    label = f"{suite.name} {run.label}"
                    grade(log, wanted, judge, label=label, reporter=reporter, workers=at_once)
                    answers[run.label] = [ScoredAnswer.of(log.row(answer.key)) for answer in wanted]
        found.append(_compare_arms(recipe, plan, suite, answers))
        undecided = sum(answer.undecided for rows in answers.values() for answer in rows)
        for label, rows in answers.items():
            failed = [answer for answer in rows if answer.error is not None]
            if failed:
                reporter.warn(
                    f"{suite.name} {label}: {len(failed)} answers failed and count as wrong, e.g. "
                    f"{failed[0].problem}#{failed[0].sample}: {failed[0].error}"
                )
        if undecided:
            reporter.warn(f"{undecided} answers count as wrong because their grading broke off twice")
    results = {"kind": "eval", "seed": recipe.seed, "baseline": plan.baseline, "suites": found}
    write_json(out / RESULTS, results)
    return results


def _compare_arms(
    recipe: EvalRecipe,
    plan: _Plan,
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
            "sampling": _sampling(recipe, run.arm, suite).model_dump(mode="json"),
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
    return Shape.of(None if run.arm.ckpt is None else Path(run.arm.ckpt), run.decoding, recipe.cost_batch)


def _engine_words(settings: EngineSettings) -> dict[str, Any]:
    """Return the kind of an engine, and how many answers it writes at once: its seconds depend on it."""
    at_once = settings.batch if isinstance(settings, TorchSettings) else settings.concurrency
    return {"kind": settings.kind, "at_once": at_once}
