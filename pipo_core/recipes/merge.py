"""`kind: merge`: base, adapter and new modules become one standalone checkpoint."""

from typing import Literal

from pydantic import Field

from pipo_core.recipes.base import AdapterRef, JobRecipe, ModelRef


class MergeRecipe(JobRecipe):
    """Writes a standalone checkpoint."""

    kind: Literal["merge"] = Field(default="merge", description="The kind of recipe.")
    source: AdapterRef = Field(description="A training's folder, or an adapter folder.", examples=["x/y"])
    base: ModelRef | None = Field(
        default=None, description="The base checkpoint; null: the one that the adapter names."
    )
    force: bool = Field(default=False, description="Also merge into a base that is not the adapter's.")
