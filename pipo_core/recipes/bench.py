"""`kind: bench`: time to the first token, time per token and throughput, of several arms side by side."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipo_core.recipes.arms import Arm, baseline_findings
from pipo_core.recipes.base import Finding, JobRecipe, ModelRef, unique
from pipo_core.recipes.common import EngineSettings, Name, TorchSettings
from pipo_core.recipes.methods import PAIRS


class BenchArm(Arm):
    """One side of a measurement."""

    name: Name = Field(description="What tables and plots call this arm.", examples=["x"])
    ckpt: ModelRef | None = Field(  # type: ignore[assignment]  # wider than an arm of eval: random weights have no file
        default=None, description="A folder, catalog name, hub id or stage:NAME; none with random_weights."
    )
    draft_vocab: int | None = Field(
        default=None, ge=1, description="pipo only: this arm's engine.draft_vocab (random weights: the first ids)."
    )


class BenchRecipe(JobRecipe):
    """TTFT, TPOT and throughput; only real tokens count, never PADs."""

    speed_is_the_result: ClassVar[bool] = True

    kind: Literal["bench"] = Field(default="bench", description="What sort of recipe this is.")
    arms: Annotated[list[BenchArm], Field(min_length=1)] = Field(
        description="What is compared.", examples=[[{"name": "x", "method": PAIRS.name, "ckpt": "x/y"}]]
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
    training_tokens: list[Annotated[int, Field(ge=8, multiple_of=2)]] = Field(
        default=[],
        description="Lengths of a row for the table of training passes, pipo against regular; empty: no such table.",
    )
    training_trials: int = Field(default=3, ge=1, description="Measured passes of each, in each of two processes.")
    baseline: str | None = Field(default=None, description="The arm that ratios are taken from.")
    engine: EngineSettings = TorchSettings(batch=1)

    def findings(self) -> Iterator[Finding]:
        """Arms have names and weights of their own, and the baseline is one of them."""
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
        for key in ("prompt_tokens", "concurrency", "training_tokens"):
            numbers = getattr(self, key)
            for index, number in enumerate(numbers):
                if number in numbers[:index]:
                    yield Finding((key, index), f"{number} stands there twice")
        for index, arm in enumerate(self.arms):
            if arm.ckpt is None and self.random_weights is None:
                yield Finding(("arms", index, "ckpt"), "missing; give a checkpoint, or random_weights for all arms")
            if arm.ckpt is not None and self.random_weights is not None:
                yield Finding(("arms", index, "ckpt"), "remove it, or random_weights", (("random_weights",),))
