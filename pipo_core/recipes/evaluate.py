"""`kind: eval`: accuracy of several arms on the same questions, with the same seeds."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.arms import Arm, baseline_findings, server_findings
from pipo_core.recipes.base import NEUTRAL, Finding, JobRecipe, ModelRef, RecipeModel, Seed, repeated, unique
from pipo_core.recipes.common import Budget, EngineSettings, SamplingChoice, TorchSettings
from pipo_core.recipes.methods import METHODS, PAIRS

USUAL_QUESTIONS = 500
"""Generated questions, unless a recipe says how many."""


class EvalArm(Arm):
    """One arm of an evaluation."""

    ckpt: ModelRef | None = Field(  # type: ignore[assignment]  # wider than other arms': a server's model has no file
        default=None,
        description="Checkpoint: a folder, catalog name, hub id or stage:NAME; none for servers of another model.",
    )
    engine: EngineSettings | None = Field(
        default=None, description="What answers for this arm; null: the recipe's engine."
    )
    sampling: SamplingChoice | None = Field(
        default=None, description="How this arm's tokens are sampled; null: as the recipe says."
    )


class EvalProblems(RecipeModel):
    """Which questions are asked."""

    count: int | None = Field(
        default=None,
        ge=1,
        description=f"Number of generated questions (null: {USUAL_QUESTIONS}), or at most so many of a suite's first.",
    )
    ids: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="Only the questions with these names; null: all."
    )
    seed: Seed = 0

    def findings(self) -> Iterator[Finding]:
        """Each question is named once."""
        yield from repeated(("ids",), self.ids or (), "named")


class SuiteJob(JobRecipe):
    """A job that asks the questions of suites."""

    kind: str = Field(default="", description="The kind of recipe.")
    suite: str = Field(
        default="tiny",
        min_length=1,
        description="What is asked: a shipped suite or group (pipo recipes ls, suites/), or a suite's file.",
    )
    profile: str | None = Field(
        default=None, description="How it is asked and graded, such as paper or official; null: each suite's usual way."
    )
    benchmark: dict[str, str] = Field(
        default={},
        description="Copies of the questions on this disk, by suite: {math: aime/test.jsonl}; others are in the "
        "Hugging Face cache.",
    )
    problems: EvalProblems = EvalProblems()
    samples: int | None = Field(
        default=None, ge=1, description="Answers per question, the k of avg@k; null: the suite's (paper: 4)."
    )
    seed: Seed = 0
    sampling: SamplingChoice | None = Field(
        default=None, description="How tokens are sampled: settings, paper or vendor; null: the suite's."
    )
    budget: Budget | None = Field(default=None, description="How long an answer may become; null: the suite's.")
    code_workers: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=1, description="Programs that are tested at once; null: the number of cores."
    )


class EvalRecipe(SuiteJob):
    """Measures avg@k and pass@k with intervals, cost per answer, and paired differences."""

    kind: Literal["eval"] = Field(default="eval", description="The kind of recipe.")
    arms: Annotated[list[EvalArm], Field(min_length=1)] = Field(
        description="The arms to compare.", examples=[[{"name": "x", "method": PAIRS.name, "ckpt": "x/y"}]]
    )
    baseline: str | None = Field(default=None, description="Name of the arm that paired differences are taken against.")
    engine: EngineSettings = Field(default=TorchSettings(), description="What answers: torch here, or servers.")
    cost_batch: int = Field(
        default=1,
        ge=1,
        description="Sequences that share a step's weights, for the estimate of bytes that answers read.",
    )

    def engine_of(self, arm: EvalArm) -> EngineSettings:
        """Return the settings of what answers for an arm."""
        return self.engine if arm.engine is None else arm.engine

    def findings(self) -> Iterator[Finding]:
        """Arms have different names; baseline names an arm; only servers' arms go without a checkpoint.

        Options of methods besides tau are the torch engine's.
        """
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
        for index, arm in enumerate(self.arms):
            kind = self.engine_of(arm).kind
            if arm.acceptance is not None and METHODS[arm.method].verified:
                message = f"method {arm.method} verifies its drafts; only a bench may take a share unseen; remove it"
                yield Finding(("arms", index, "acceptance"), message, (("arms", index, "method"),))
            if kind != "torch":
                yield from server_findings(index, arm, kind, (("engine",),))
            if arm.ckpt is None and kind != "remote":
                yield Finding(("arms", index), f"engine {kind} needs a ckpt", (("engine",),))
