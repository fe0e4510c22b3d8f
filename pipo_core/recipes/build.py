"""`kind: build`: rollouts become a training set (docs/algorithm.md)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, Seed, rows_ref
from pipo_core.recipes.common import Problems


class BuildRecipe(JobRecipe):
    """Chooses answers and writes them as train.jsonl."""

    kind: Literal["build"] = Field(default="build", description="The kind of recipe.")
    rollouts: Annotated[str, rows_ref("rollouts.jsonl")] | None = Field(
        default=None,
        description="Rollouts to choose from: a rollout run's folder, or its rollouts.jsonl.",
        examples=["x/y"],
    )
    worked: Problems | None = Field(
        default=None, description="Instead of rollouts: problems with worked solutions, which become the examples."
    )
    keep: Literal["correct", "shortest_correct"] = Field(
        default="correct",
        description="correct: all correct finished answers (the paper's); shortest_correct: one per problem.",
    )
    validation_share: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the problems whose examples go to validation.jsonl instead."
    )
    minimum_solved: float = Field(
        default=0.0, ge=0, le=1, description="Leave out problems of which a smaller share of the answers is correct."
    )
    seed: Seed = 0

    def findings(self) -> Iterator[Finding]:
        """Give either rollouts or worked."""
        if (self.rollouts is None) == (self.worked is None):
            yield Finding(("rollouts",), "give either rollouts or worked", (("worked",),))
