"""Rollouts: a model, usually the teacher, answers every problem several times, and each answer is graded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipo_core.data.answers import Answer, AnswerLog
from pipo_core.data.asking import Asking, LazyEngine, ask, wanted_answers
from pipo_core.data.grading import Judge, grade
from pipo_core.data.problems import Problem, gradable, user_message
from pipo_core.data.provenance import describe_rollout, finish_rollout
from pipo_core.engine import open_engine
from pipo_core.engine.opening import OpenEngine
from pipo_core.machine import cores
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.reporting import Reporter, SilentReporter

ROLLOUTS = "rollouts.jsonl"


def run_rollout(
    recipe: RolloutRecipe,
    out: Path,
    *,
    judge: Judge,
    reporter: Reporter | None = None,
    open_engine: OpenEngine = open_engine,
) -> dict[str, Any]:
    """Write `recipe.samples` graded answers to every problem into `out/rollouts.jsonl`; return the totals.

    The file holds answers in the order of completion (see `answers`). Answers and verdicts of an earlier call stay.
    Beside it, `provenance.ABOUT` says what was asked of which model.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        judge: decides whether an answer is right.
        reporter: shows progress and warnings.
        open_engine: opens the engine that answers.

    Raises:
        MissingInputError: if the problems cannot be read, or cannot be graded.
        MachineError: if the problems are in parquet and pyarrow is not installed.
        PipoError: if the engine ends before every request was answered.
    """
    reporter = reporter or SilentReporter()
    shard = recipe.shard
    problems = gradable(recipe.problems, recipe.grader, (shard.index, shard.count))
    if not problems:
        reporter.warn(f"no problem falls to shard {shard.index} of {shard.count}; its file is empty")
    about = describe_rollout(recipe, out, len(problems))
    wanted = wanted_answers(problems, recipe.samples)
    asking = Asking(
        title="rollout",
        seed=recipe.seed,
        sampling=recipe.sampling,
        prompt=lambda problem: [{"role": "user", "content": user_message(problem)}],
        max_tokens=recipe.budget.tokens,
        max_slots=recipe.budget.slots,
        excuse=True,
    )
    with AnswerLog(out / ROLLOUTS) as log:
        with LazyEngine(lambda: open_engine(Path(recipe.model), Decoding(recipe.method), recipe.engine)) as engine:
            ask(log, wanted, asking, engine=engine, reporter=reporter)
        workers = cores() if recipe.grader == "code" else 1
        grade(log, wanted, judge, label="rollout", reporter=reporter, workers=workers)
        totals = _rollout_totals(problems, [log.answers[answer.key] for answer in wanted])
    finish_rollout(about, out)
    return totals


def _rollout_totals(problems: Sequence[Problem], answers: Sequence[Answer]) -> dict[str, Any]:
    """Return counts of problems and answers, and means over the answers; shares are in [0, 1]."""
    count = max(1, len(answers))
    return {
        "problems": len(problems),
        "answers": len(answers),
        "finished": sum(answer.finished for answer in answers) / count,
        "solved": sum(answer.solved for answer in answers) / count,
        "problems_solved": len({answer.problem for answer in answers if answer.solved}),
        "mean_tokens": sum(answer.tokens for answer in answers) / count,
        "undecided": sum(answer.undecided for answer in answers),
    }
