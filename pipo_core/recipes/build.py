"""`kind: build`: rollouts become training rows (docs/algorithm.md)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, Seed, rows_ref
from pipo_core.recipes.common import Problems


class BuildRecipe(JobRecipe):
    """Choose answers and write train.jsonl."""

    kind: Literal["build"] = Field(default="build", description="What sort of recipe this is.")
    rollouts: Annotated[str, rows_ref("rollouts.jsonl")] | None = Field(
        default=None, description="A rollout run's folder, or its rollouts.jsonl.", examples=["x/y"]
    )
    worked: Problems | None = Field(
        default=None, description="Or problems that come with worked solutions: these become the rows."
    )
    keep: Literal["correct", "shortest_correct"] = Field(
        default="correct",
        description="All correct finished answers (the paper's), or the shortest a problem.",
    )
    validation_share: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the problems that goes to validation.jsonl instead."
    )
    minimum_solved: float = Field(
        default=0.0, ge=0, le=1, description="Leave out problems solved in a smaller share of their answers."
    )
    seed: Seed = 0

    def findings(self) -> Iterator[Finding]:
        """One source of rows."""
        if (self.rollouts is None) == (self.worked is None):
            yield Finding(("rollouts",), "give rollouts or worked, one of them", (("worked",),))
