"""Rollouts: a model answers every problem several times, and each answer is graded (the teacher's answers)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipo_core.data.answers import Answer, AnswerLog
from pipo_core.data.asking import Asking, Judge, all_questions, ask, grade
from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.engine import open_engine
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import MissingInputError
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
    """Answer and grade every problem `recipe.samples` times into `out/rollouts.jsonl`; return the totals.

    Rows stand in the order of completion (see `answers`). Answers and verdicts that are there are kept.

    Args:
        recipe: its paths are real folders and files.
        out: the stage's folder, which exists.
        judge: decides whether an answer is right.
        reporter: hears of progress and trouble.
        open_engine: opens the engine that answers.

    Raises:
        MissingInputError: for unreadable problems, or two of one id.
        PipoError: if the engine ends without having answered everything.
    """
    reporter = reporter or SilentReporter()
    problems = load_problems(recipe.problems.source, recipe.problems.split, recipe.problems.count, recipe.problems.seed)
    if len({problem.id for problem in problems}) < len(problems):
        raise MissingInputError(f"{recipe.problems.source}: two problems have the same id")
    questions = all_questions(problems, recipe.samples)
    asking = Asking(
        title="rollout",
        seed=recipe.seed,
        sampling=recipe.sampling,
        prompt=lambda problem: [{"role": "user", "content": user_message(problem)}],
        max_tokens=recipe.budget.tokens,
        max_slots=recipe.budget.slots,
    )
    with AnswerLog(out / ROLLOUTS) as log:
        engine = lambda: open_engine(Path(recipe.model), Decoding(recipe.method), recipe.engine)  # noqa: E731
        ask(log, questions, asking, open_engine=engine, reporter=reporter)
        grade(log, questions, judge, label="rollout", reporter=reporter)
        return _summary(problems, [log.answers[question.key] for question in questions])


def _summary(problems: Sequence[Problem], answers: Sequence[Answer]) -> dict[str, Any]:
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
