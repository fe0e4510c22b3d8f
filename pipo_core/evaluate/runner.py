"""`pipo eval`: several arms answer the same questions with the same noise and are compared at equal budgets."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import Asking, LazyEngine, WantedAnswer, ask, asked_otherwise, wanted_answers
from pipo_core.data.grading import grade
from pipo_core.engine import Engines
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import MissingInputError
from pipo_core.evaluate.comparison import compare_arms
from pipo_core.evaluate.lossless import prove_runs, read_proofs
from pipo_core.evaluate.plan import ArmRun, Plan, SuiteRun, asking_of, make_plan
from pipo_core.evaluate.scores import ScoredAnswer
from pipo_core.evaluate.suites import open_judge
from pipo_core.files import write_json
from pipo_core.machine import cores
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.reporting import Reporter, SilentReporter

RESULTS = "results.json"
ANSWERS = "answers"


def run_eval(
    recipe: EvalRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: OpenEngine | None = None,
) -> dict[str, Any]:
    """Ask, grade and compare; return the content of `out/results.json`.

    Each answer is appended to `out/answers/<suite>/<label>.jsonl` as soon as it is complete, and so is each verdict. A
    second call makes only what is missing. What arms that claim to be lossless were found to be is in
    `out/lossless.json` before the first answer. One engine of an arm answers all suites. Every arm has figures
    (`scores.figures`) at the token budget and, if all engines report their steps, at the slot budget (`both_budgets`).

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress and warnings.
        open_engine: opens the engines that answer; None for the default, where those of one arm share weights.

    Raises:
        UsageError: if the baseline is an arm with several thresholds, or a suite has no such profile or question.
        MissingInputError: if a file does not hold the questions.
        MachineError: if a grader lacks a library or an isolated place for programs.
        PipoError: if an engine ends before every request was answered, or an arm that claims to be lossless is not.
    """
    reporter = reporter or SilentReporter()
    plan = make_plan(recipe, reporter)
    _check_graders(recipe, plan.suites)
    prove_runs(recipe, plan, out, reporter, open_engine)
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
    plan = make_plan(recipe, reporter)
    _check_graders(recipe, plan.suites)
    places = [(run, suite) for run in plan.runs for suite in plan.suites]
    for run, suite in places:  # all are looked at before the first verdict is forgotten
        with AnswerLog(answers_path(out, suite.name, run.label)) as log:
            _require_whole(log, wanted_answers(suite.questions.problems, suite.samples), asking_of(recipe, run, suite))
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


def _check_graders(recipe: EvalRecipe, suites: Sequence[SuiteRun]) -> None:
    """Open each suite's grader once: what it lacks is told before the first answer, not hours later."""
    for suite in suites:
        with open_judge(suite.named.profile(recipe.profile).grader, 1):
            pass


def answers_path(out: Path, suite: str, label: str) -> Path:
    """Return the file of an arm's answers to a suite, in an evaluation's folder."""
    return out / ANSWERS / suite / f"{label}.jsonl"


def _answer(
    recipe: EvalRecipe,
    run: ArmRun,
    suites: Sequence[SuiteRun],
    out: Path,
    reporter: Reporter,
    open_engine: OpenEngine | None,
) -> None:
    """Append the answers that an arm's files lack, to all suites with one engine."""
    settings = recipe.engine_of(run.arm)
    ckpt = None if run.arm.ckpt is None else Path(run.arm.ckpt)
    opened = open_engine or Engines().open
    with LazyEngine(lambda: opened(ckpt, run.decoding, settings)) as engine:
        for suite in suites:
            with AnswerLog(answers_path(out, suite.name, run.label)) as log:
                wanted = wanted_answers(suite.questions.problems, suite.samples)
                ask(log, wanted, asking_of(recipe, run, suite), engine=engine, reporter=reporter)


def _graded(recipe: EvalRecipe, plan: Plan, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Append the verdicts that are missing, and write and return the results."""
    workers = recipe.code_workers or cores()
    known = read_proofs(out)
    proofs = [known[run.label] for run in plan.runs if run.label in known]
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
        found.append({**compare_arms(recipe, plan, suite, answers), "lossless": proofs})
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
