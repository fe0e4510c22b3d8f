"""`kind: pipeline`: several recipes in order; `stage:NAME` names the output of an earlier one."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, RecipeModel, unique
from pipo_core.recipes.common import Name


class Stage(RecipeModel):
    """One job of a pipeline."""

    name: Name = Field(
        description="Name of the stage: its folder under outputs/RUN/, and the NAME in stage:NAME.", examples=["x"]
    )
    recipe: str = Field(
        min_length=1,
        description="Recipe file, relative to the pipeline's file, or the name of a shipped recipe.",
        examples=["x.yaml"],
    )
    set: dict[str, Any] = Field(default={}, description="Changes to that recipe: dotted keys and their values.")


class PipelineRecipe(JobRecipe):
    """Runs stages in order and writes a report."""

    kind: Literal["pipeline"] = Field(default="pipeline", description="The kind of recipe.")
    stages: Annotated[list[Stage], Field(min_length=1)] = Field(
        description="The stages, in the order in which they run.", examples=[[{"name": "x", "recipe": "x.yaml"}]]
    )

    def findings(self) -> Iterator[Finding]:
        """Stages have different names."""
        yield from unique([stage.name for stage in self.stages], "stages", "stage")
