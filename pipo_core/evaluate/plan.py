"""What an evaluation compares: arms with their decodings, suites with their questions, budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipo_core.data.asking import Asking
from pipo_core.errors import UsageError
from pipo_core.evaluate.scores import Unit
from pipo_core.evaluate.suites import Questions, load_questions
from pipo_core.recipes.common import Budget, Sampling, sampling_of
from pipo_core.recipes.evaluate import EvalArm, EvalRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.suites import NamedSuite, find_suites
from pipo_core.reporting import Reporter


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


@dataclass(frozen=True)
class Plan:
    """What a recipe compares: each run answers each suite."""

    runs: list[ArmRun]
    baseline: str | None
    suites: list[SuiteRun]


def make_plan(recipe: EvalRecipe, reporter: Reporter) -> Plan:
    """Return what a recipe compares.

    Raises:
        UsageError: if the baseline is an arm with several thresholds, or a suite has no such profile or question.
        MissingInputError: if a file does not hold the questions.
    """
    runs = [ArmRun(arm, decoding) for arm in recipe.arms for decoding in arm.decodings()]
    baseline = _baseline_label(recipe, runs)
    return Plan(runs, baseline, [_suite_run(recipe, named, reporter) for named in find_suites(recipe.suite)])


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


def asking_of(recipe: EvalRecipe, run: ArmRun, suite: SuiteRun) -> Asking:
    """Return how an arm is asked a suite's questions."""
    max_tokens, max_slots = limits(suite.budgets, run.decoding)
    return Asking(
        title="eval",
        label=f"{suite.name} {run.label}",
        seed=recipe.seed,
        sampling=sampling_for(recipe, run.arm, suite),
        prompt=lambda problem: [{"role": "user", "content": problem.question}],
        max_tokens=max_tokens,
        max_slots=max_slots,
        whole=False,
        excuse=True,
    )


def sampling_for(recipe: EvalRecipe, arm: EvalArm, suite: SuiteRun) -> Sampling:
    """Return how an arm's tokens are sampled: as the arm says, else the recipe, else the suite."""
    chosen = next(one for one in (arm.sampling, recipe.sampling, suite.named.suite.sampling) if one is not None)
    return sampling_of(chosen)


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
