"""`kind: merge`: adapter and new modules become a checkpoint that stands alone."""

from typing import Literal

from pydantic import Field

from pipo_core.recipes.base import AdapterRef, JobRecipe, ModelRef


class MergeRecipe(JobRecipe):
    """Write a standalone checkpoint."""

    kind: Literal["merge"] = Field(default="merge", description="What sort of recipe this is.")
    source: AdapterRef = Field(description="A train run's folder, or an adapter folder.", examples=["x/y"])
    base: ModelRef | None = Field(default=None, description="The base checkpoint; null: the one the adapter names.")
    force: bool = Field(default=False, description="Merge into a base that is not the adapter's own, too.")
