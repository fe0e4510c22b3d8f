"""`kind: rollout`: a model answers problems several times (the teacher's answers)."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, ModelRef, RecipeModel, Seed
from pipo_core.recipes.common import Budget, EngineSettings, Sampling, TorchSettings
from pipo_core.recipes.methods import PLAIN, MethodName
from pipo_core.recipes.problems import Problems, columns_findings

GraderName = Literal["boxed", "code", "none"]


class Shard(RecipeModel):
    """The part of the problems that one worker answers; a problem's part is a hash of its question."""

    index: int = Field(default=0, ge=0, description="The worker's number, from 0.")
    count: int = Field(default=1, ge=1, description="How many workers there are.")

    def findings(self) -> Iterator[Finding]:
        """The index is below count."""
        if self.index >= self.count:
            yield Finding(("index",), f"must be below count ({self.count})", (("count",),))


class RolloutRecipe(JobRecipe):
    """Samples answers and marks the correct ones."""

    kind: Literal["rollout"] = Field(default="rollout", description="The kind of recipe.")
    model: ModelRef = Field(description="The checkpoint that answers.", examples=["x/y"])
    method: MethodName = Field(default=PLAIN.name, description="How it decodes: regular for an uncompressed model.")
    problems: Problems = Problems()
    grader: GraderName = Field(
        default="boxed",
        description="boxed: the last \\boxed{} as mathematics; code: the last program, by tests; none: every finished "
        "answer counts as correct.",
    )
    shard: Shard = Shard()
    samples: int = Field(default=4, ge=1, description="Answers per problem (paper: 4).")
    sampling: Sampling = Sampling()
    budget: Budget = Field(description="How long an answer may become.", examples=[{"tokens": 1}])
    engine: EngineSettings = Field(default=TorchSettings(), description="What answers: torch here, or servers.")
    seed: Seed = 0

    @property
    def stage(self) -> str:
        """Return the name of the stage's folder, which has the shard's number in it if there are several."""
        return self.kind if self.shard.count == 1 else f"{self.kind}-{self.shard.index}-of-{self.shard.count}"

    def findings(self) -> Iterator[Finding]:
        """Columns that are mapped are read: no solution, and no answer with grader none; the graders need an answer."""
        columns = self.problems.columns
        unread = {"solution": "rollouts have answers of their own"}
        if self.grader == "none":
            unread["answer"] = "grader: none compares with no answer"
        yield from columns_findings(columns, unread, ("problems", "columns"))
        if columns is not None and columns.answer is None and self.grader != "none":
            message = f"grader: {self.grader} needs the column of the right answer; or give grader: none"
            yield Finding(("problems", "columns", "answer"), message, (("grader",),))
