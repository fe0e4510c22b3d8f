"""`kind: bench`: time to the first token, time per token and throughput, of several arms side by side."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, JobRecipe, ModelRef, unique
from pipo_core.recipes.common import Arm, EngineSettings, Name, baseline_findings

Share = Annotated[float, Field(ge=0, le=1)]


class BenchArm(Arm):
    """One side of a measurement."""

    name: Name = Field(description="What tables and plots call this arm.", examples=["x"])
    ckpt: ModelRef | None = Field(  # type: ignore[assignment]  # wider than an arm of eval: random weights have no file
        default=None, description="A folder, catalog name, hub id or stage:NAME; none with random_weights."
    )
    acceptance: list[Share] | None = Field(
        default=None,
        min_length=1,
        description="pipo only: keep these shares of the drafts whatever their confidence, one row each; null: as tau.",
    )
    draft_vocab: int | None = Field(
        default=None, ge=1, description="pipo only: this arm's engine.draft_vocab (random weights: the first ids)."
    )

    def findings(self) -> Iterator[Finding]:
        """Only pipo has a gate to fix."""
        yield from super().findings()
        for key in ("acceptance", "draft_vocab"):
            if getattr(self, key) is not None and self.method != "pipo":
                yield Finding((key,), f"method {self.method} has no {key}; remove it", (("method",),))
        if self.acceptance is not None and self.tau is not None:
            yield Finding(("acceptance",), "tau and acceptance both say which drafts are kept", (("tau",),))

    def variants(self) -> list[tuple[float | None, float | None]]:
        """Return the thresholds and fixed shares to run, one of the two or neither."""
        if self.acceptance is not None:
            return [(None, share) for share in dict.fromkeys(self.acceptance)]
        return [(tau, None) for tau in dict.fromkeys(self.taus())] or [(None, None)]


class BenchRecipe(JobRecipe):
    """TTFT, TPOT and throughput; only real tokens count, never PADs."""

    kind: Literal["bench"] = Field(default="bench", description="What sort of recipe this is.")
    arms: Annotated[list[BenchArm], Field(min_length=1)] = Field(
        description="What is compared.", examples=[[{"name": "x", "method": "pipo", "ckpt": "x/y"}]]
    )
    random_weights: str | None = Field(
        default=None,
        description="A published shape (qwen3.5-0.8b … -9b) with random weights for all arms: speed needs no others.",
    )
    prompt_tokens: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] = Field(
        default=[2048], description="Prompt lengths in tokens, one row of the table each."
    )
    new_tokens: int = Field(default=16, ge=2, description="Real tokens generated a trial (paper: 16).")
    trials: int = Field(default=16, ge=1, description="Measured trials (paper: 16).")
    warmup: int = Field(default=2, ge=0, description="Trials before them that are not measured.")
    concurrency: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="Requests at once for the throughput table, one row each; empty: no such table."
    )
    concurrent_prompt_tokens: int = Field(default=128, ge=2, description="Their prompts' length in tokens.")
    concurrent_new_tokens: int = Field(default=64, ge=2, description="Real tokens that each of them writes.")
    concurrent_trials: int = Field(default=3, ge=1, description="Measured rounds of throughput, after one warm-up.")
    baseline: str | None = Field(default=None, description="The arm that ratios are taken from.")
    engine: EngineSettings = EngineSettings(batch=1)

    def findings(self) -> Iterator[Finding]:
        """Arms have names and weights of their own, and the baseline is one of them."""
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
        for index, arm in enumerate(self.arms):
            if arm.ckpt is None and self.random_weights is None:
                yield Finding(("arms", index, "ckpt"), "missing; give a checkpoint, or random_weights for all arms")
            if arm.ckpt is not None and self.random_weights is not None:
                yield Finding(("arms", index, "ckpt"), "remove it, or random_weights", (("random_weights",),))
