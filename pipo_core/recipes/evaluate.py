"""`kind: eval`: accuracy of several arms on the same problems, with the same draws."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, RecipeModel, Seed, unique
from pipo_core.recipes.common import Arm, Budget, EngineSettings, Sampling, baseline_findings


class EvalProblems(RecipeModel):
    """How many held-out problems."""

    count: int = Field(default=500, ge=1, description="Held-out problems.")
    seed: Seed = 0


class EvalRecipe(JobRecipe):
    """avg@k, pass@k with intervals, tokens a slot, paired differences."""

    kind: Literal["eval"] = Field(default="eval", description="What sort of recipe this is.")
    suite: Literal["tiny"] = Field(default="tiny", description="The benchmark: tiny is generated arithmetic.")
    problems: EvalProblems = EvalProblems()
    samples: int = Field(default=4, ge=1, description="Answers a problem: the k of avg@k (paper: 4).")
    seed: Seed = 0
    sampling: Sampling = Sampling()
    budget: Budget = Field(description="How long an answer may become.", examples=[{"tokens": 1}])
    arms: Annotated[list[Arm], Field(min_length=1)] = Field(
        description="What is compared.", examples=[[{"name": "x", "method": "pipo", "ckpt": "x/y"}]]
    )
    baseline: str | None = Field(default=None, description="The arm that paired differences are taken from.")
    engine: EngineSettings = EngineSettings()

    def findings(self) -> Iterator[Finding]:
        """Arms have names of their own and the baseline is one of them."""
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
