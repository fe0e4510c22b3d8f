"""`kind: bench`: time to the first token and per token, of several arms side by side."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, unique
from pipo_core.recipes.common import Arm, EngineSettings, baseline_findings


class BenchRecipe(JobRecipe):
    """TTFT and TPOT; only real tokens count, never PADs."""

    kind: Literal["bench"] = Field(default="bench", description="What sort of recipe this is.")
    arms: Annotated[list[Arm], Field(min_length=1)] = Field(
        description="What is compared.", examples=[[{"name": "x", "method": "pipo", "ckpt": "x/y"}]]
    )
    prompt_tokens: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] = Field(
        default=[2048], description="Prompt lengths in tokens, one row of the table each."
    )
    new_tokens: int = Field(default=16, ge=2, description="Real tokens generated a trial (paper: 16).")
    trials: int = Field(default=16, ge=1, description="Measured trials (paper: 16).")
    warmup: int = Field(default=2, ge=0, description="Trials before them that are not measured.")
    baseline: str | None = Field(default=None, description="The arm that ratios are taken from.")
    engine: EngineSettings = EngineSettings(batch=1)

    def findings(self) -> Iterator[Finding]:
        """Arms have names of their own and the baseline is one of them."""
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
