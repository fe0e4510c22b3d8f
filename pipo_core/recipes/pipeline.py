"""`kind: pipeline`: several recipes in order; later ones take the outputs of earlier ones as `stage:NAME`."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, RecipeModel, unique
from pipo_core.recipes.common import Name


class Stage(RecipeModel):
    """One job of a pipeline."""

    name: Name = Field(
        description="Folder of the stage under outputs/RUN/, and what stage:NAME refers to.", examples=["x"]
    )
    recipe: str = Field(
        min_length=1,
        description="Recipe file, relative to the pipeline's own file, or a shipped recipe's name.",
        examples=["x.yaml"],
    )
    set: dict[str, Any] = Field(default={}, description="Changes to that recipe: dotted key to value.")


class PipelineRecipe(JobRecipe):
    """Stages in order, ending in a report."""

    kind: Literal["pipeline"] = Field(default="pipeline", description="What sort of recipe this is.")
    stages: Annotated[list[Stage], Field(min_length=1)] = Field(
        description="The jobs, in the order they run.", examples=[[{"name": "x", "recipe": "x.yaml"}]]
    )

    def findings(self) -> Iterator[Finding]:
        """Stages have names of their own."""
        yield from unique([stage.name for stage in self.stages], "stages", "stage")
