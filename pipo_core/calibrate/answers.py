"""What the settings' answers are: asked and graded as `pipo eval` does it, or rows of a training set, ungraded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import Asking, LazyEngine, Messages, ask, wanted_answers
from pipo_core.data.problems import Problem
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import MissingInputError
from pipo_core.evaluate.plan import both_budgets, limits, make_plan
from pipo_core.evaluate.runner import answers_path, run_eval
from pipo_core.evaluate.scores import Cut, Outcome, ScoredAnswer, outcome
from pipo_core.evaluate.statistics import Floats
from pipo_core.recipes.calibrate import AskedRows, CalibrateRecipe
from pipo_core.recipes.common import Budget, Sampling, sampling_of
from pipo_core.recipes.profile import Asked
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.rows import check_rows, read_rows

_ROWS = "rows"
"""Stands for a suite's name in the answers' folder."""


@dataclass(frozen=True)
class Answered:
    """The answers of one setting within the token budget.

    Attributes:
        answers: how many.
        tokens: their real tokens.
        steps: their steps.
        right: how many are right; None if nothing was graded.
        average: share of right answers of each question, ``[Q]``; None if nothing was graded.
    """

    answers: int
    tokens: int
    steps: int
    right: int | None = None
    average: Floats | None = None

    @property
    def tokens_per_step(self) -> float:
        """Real tokens that a step wrote."""
        return self.tokens / self.steps

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, graded: bool) -> "Answered":
        """Return what the answers to some suites are, all questions counted alike."""
        cuts: list[Cut] = [cut for one in outcomes for cut in one.answers()]
        return cls(
            answers=len(cuts),
            tokens=sum(cut.tokens for cut in cuts),
            steps=sum(cut.slots or 0 for cut in cuts),
            right=sum(cut.correct for cut in cuts) if graded else None,
            average=np.concatenate([one.average() for one in outcomes]) if graded else None,
        )


def measure_answers(
    recipe: CalibrateRecipe, out: Path, open_engine: OpenEngine, reporter: Reporter
) -> tuple[Asked, dict[str, Answered]]:
    """Return what was asked, and the answers of every setting by its label.

    Answers are appended below ``out`` as they complete, and a second call asks only what is missing.

    Raises:
        PipoError: as `run_eval`; for rows that are not conversations, naming the line.
    """
    if recipe.rows is not None:
        return _of_rows(recipe, recipe.rows, out, open_engine, reporter)
    evaluation = recipe.evaluation()
    run_eval(evaluation, out, reporter=reporter, open_engine=open_engine)
    plan = make_plan(evaluation, SilentReporter())
    found: dict[str, Answered] = {}
    for run in plan.runs:
        outcomes = []
        for suite in plan.suites:
            wanted = wanted_answers(suite.questions.problems, suite.samples)
            with AnswerLog(answers_path(out, suite.name, run.label)) as log:
                answers = [ScoredAnswer.of(log.row(one.key)) for one in wanted]
            outcomes.append(
                outcome(answers, suite.questions.problems, suite.samples, "tokens", suite.budgets["tokens"])
            )
        found[run.label] = Answered.of(outcomes, graded=True)
    asked = Asked(
        what=", ".join(suite.name for suite in plan.suites),
        questions=sum(len(suite.questions.problems) for suite in plan.suites),
        samples=max(suite.samples for suite in plan.suites),
    )
    return asked, found


def _of_rows(
    recipe: CalibrateRecipe, rows: AskedRows, out: Path, open_engine: OpenEngine, reporter: Reporter
) -> tuple[Asked, dict[str, Answered]]:
    """Return the answers to questions of a training set."""
    questions = read_questions(Path(rows.file), rows.count)
    problems = [Problem(id=name, question=turns[-1]["content"], answer="") for name, turns in questions.items()]
    samples, budgets = recipe.samples or 1, both_budgets(recipe.budget or Budget())
    found: dict[str, Answered] = {}
    regular = None if recipe.regular is None else Path(recipe.regular.ckpt)
    for name, decoding in [*recipe.pairs(), *recipe.uncompressed()]:
        label = decoding.label(name)
        ckpt = Path(recipe.ckpt) if decoding.spec.reads_pairs else regular
        max_tokens, max_slots = limits(budgets, decoding)
        asking = Asking(
            title="eval",
            label=label,
            seed=recipe.seed,
            sampling=Sampling() if recipe.sampling is None else sampling_of(recipe.sampling),
            prompt=lambda problem: questions[problem.id],
            max_tokens=max_tokens,
            max_slots=max_slots,
            whole=False,
            excuse=True,
        )
        wanted = wanted_answers(problems, samples)
        opened = LazyEngine(partial(open_engine, ckpt, decoding, recipe.engine))
        with opened as engine, AnswerLog(answers_path(out, _ROWS, label)) as log:
            ask(log, wanted, asking, engine=engine, reporter=reporter)
            answers = [ScoredAnswer.of(log.row(one.key)) for one in wanted]
        found[label] = Answered.of([outcome(answers, problems, samples, "tokens", budgets["tokens"])], graded=False)
    return Asked(what=rows.file, questions=len(problems), samples=samples), found


def read_questions(file: Path, count: int) -> Mapping[str, Messages]:
    """Return the first rows of a training set by name: of each, the messages up to the last user turn.

    Raises:
        MissingInputError: for a row that is not a conversation, naming its line.
    """
    check_rows(file, count, answered=False)
    found: dict[str, Messages] = {}
    for row in read_rows(file, count):
        last = max(index for index, message in enumerate(row.messages) if message["role"] == "user")
        found[f"row-{row.line}"] = row.messages[: last + 1]
    if not found:
        raise MissingInputError(f"{file} holds no rows")
    return found
