"""`kind: bench`: time to first token, time per output token and throughput of several arms."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipo_core.recipes.arms import Arm, baseline_findings, server_findings
from pipo_core.recipes.base import Finding, JobRecipe, Loc, ModelRef, RecipeModel, repeated, unique
from pipo_core.recipes.common import EngineSettings, Name, TorchSettings
from pipo_core.recipes.methods import PAIRS


class BenchArm(Arm):
    """One arm of a benchmark."""

    name: Name = Field(description="Name of this arm in tables and plots.", examples=["x"])
    ckpt: ModelRef | None = Field(  # type: ignore[assignment]  # wider than an arm of eval: random weights have no file
        default=None, description="Checkpoint: a folder, catalog name, hub id or stage:NAME; none with random_weights."
    )
    engine: EngineSettings | None = Field(
        default=None, description="What answers for this arm; null: the recipe's engine."
    )


WARMUP_ROUNDS = 1
"""Rounds of each load that are not counted: kernels compile, buffers grow."""

Lengths = Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]


class Users(RecipeModel):
    """The table of decoding by context and number of requests, prompts left out."""

    context: Lengths = Field(description="Tokens of each request's prompt.", examples=[[2048]])
    requests: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        description="Requests that decode together.", examples=[[1, 8]]
    )
    new_tokens: int = Field(default=32, ge=8, description="Tokens of each answer, PAD not counted.")
    trials: int = Field(default=3, ge=1, description="Measured rounds of each load, after one warm-up.")

    @property
    def rounds(self) -> int:
        """Return the rounds of each load, the warm-up included."""
        return WARMUP_ROUNDS + self.trials

    def findings(self) -> Iterator[Finding]:
        """No context and no number of requests is given twice."""
        yield from repeated(("context",), self.context)
        yield from repeated(("requests",), self.requests)


class EqualMemory(RecipeModel):
    """The table of what each method has room for in the same memory."""

    gib: float = Field(gt=0, description="Memory in GiB for weights and sequences of each arm.", examples=[8.0])
    context: Lengths = Field(description="Tokens of each request's prompt.", examples=[[2048]])
    measured: bool = Field(
        default=True, description="Also run as many requests as fit; false: only what shapes alone say."
    )
    new_tokens: int = Field(default=32, ge=8, description="Tokens of each answer, PAD not counted.")
    trials: int = Field(default=1, ge=1, description="Measured rounds, after one warm-up.")

    @property
    def rounds(self) -> int:
        """Return the rounds of each context, the warm-up included."""
        return WARMUP_ROUNDS + self.trials

    def findings(self) -> Iterator[Finding]:
        """No context is given twice."""
        yield from repeated(("context",), self.context)


class BenchRecipe(JobRecipe):
    """Measures TTFT, TPOT, throughput and what fits; PAD is not counted as a token."""

    speed_is_the_result: ClassVar[bool] = True

    kind: Literal["bench"] = Field(default="bench", description="The kind of recipe.")
    arms: Annotated[list[BenchArm], Field(min_length=1)] = Field(
        description="The arms to compare.", examples=[[{"name": "x", "method": PAIRS.name, "ckpt": "x/y"}]]
    )
    random_weights: str | None = Field(
        default=None,
        description="Give all arms random weights in a published shape (qwen3.5-0.8b … -9b): enough to measure speed.",
    )
    prompt_tokens: list[Annotated[int, Field(ge=2)]] = Field(
        default=[2048],
        description="Prompt lengths in tokens; each is one row of the table of one request at a time; empty: no table.",
    )
    new_tokens: int = Field(default=16, ge=2, description="Tokens generated in a trial, PAD not counted (paper: 16).")
    trials: int = Field(default=16, ge=1, description="Measured trials (paper: 16).")
    warmup: int = Field(default=2, ge=0, description="Trials before the measured ones.")
    concurrency: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="Concurrent requests; each number is one row of the throughput table; empty: no table."
    )
    concurrent_prompt_tokens: int = Field(default=128, ge=2, description="Throughput: prompt length in tokens.")
    concurrent_new_tokens: int = Field(default=64, ge=2, description="Throughput: tokens per answer, PAD not counted.")
    concurrent_trials: int = Field(default=3, ge=1, description="Throughput: measured rounds, after one warm-up.")
    users: Users | None = Field(default=None, description="Decoding by users and context; null: no table.")
    equal_memory: EqualMemory | None = Field(
        default=None, description="Sequences and speed at equal memory; null: no table."
    )
    training_tokens: list[Annotated[int, Field(ge=8, multiple_of=2)]] = Field(
        default=[],
        description="Example lengths for the table of training passes, pipo against regular; empty: no table.",
    )
    training_trials: int = Field(default=3, ge=1, description="Measured passes of each, in each of two processes.")
    baseline: str | None = Field(default=None, description="Name of the arm that the others are divided by.")
    engine: EngineSettings = Field(
        default=TorchSettings(batch=1), description="What answers: torch here, or servers; an arm may have its own."
    )

    def engine_of(self, arm: BenchArm) -> EngineSettings:
        """Return the settings of the engine that answers for an arm."""
        return self.engine if arm.engine is None else arm.engine

    def servers(self) -> list[EngineSettings]:
        """Return the engines of arms that are not the torch engine, each once."""
        found: list[EngineSettings] = []
        for settings in map(self.engine_of, self.arms):
            if not isinstance(settings, TorchSettings) and settings not in found:
                found.append(settings)
        return found

    @property
    def rounds(self) -> int:
        """Return the rounds of the table of one request at a time, warm-ups included."""
        return self.warmup + self.trials

    @property
    def concurrent_rounds(self) -> int:
        """Return the rounds of the throughput table, the warm-up included."""
        return WARMUP_ROUNDS + self.concurrent_trials

    def trials_by_table(self) -> dict[str, int]:
        """Return how many trials each table takes, warm-ups included; without tables that are not asked for."""
        users, memory = self.users, self.equal_memory
        rounds = {
            "trials": len(self.prompt_tokens) * self.rounds,
            "trials of throughput": len(self.concurrency) * self.concurrent_rounds,
            "trials by users": len(users.context) * len(users.requests) * users.rounds if users else 0,
            "trials at equal memory": len(memory.context) * memory.rounds if memory and memory.measured else 0,
        }
        decodings = sum(len(arm.decodings()) for arm in self.arms)
        return {table: number * decodings for table, number in rounds.items() if number}

    def findings(self) -> Iterator[Finding]:
        """Arms have different names, and each a checkpoint unless random_weights is given; baseline names an arm.

        No length and no number of requests is given twice.
        Random weights, options of methods besides tau, equal memory and training passes are the torch engine's.
        """
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
        for key in ("prompt_tokens", "concurrency", "training_tokens"):
            yield from repeated((key,), getattr(self, key))
        for index, arm in enumerate(self.arms):
            if arm.ckpt is None and self.random_weights is None:
                yield Finding(("arms", index, "ckpt"), "missing; give a checkpoint, or random_weights for all arms")
            if arm.ckpt is not None and self.random_weights is not None:
                message = "random_weights replaces every checkpoint; give one of the two"
                yield Finding(("arms", index, "ckpt"), message, (("random_weights",),))
            if not isinstance(self.engine_of(arm), TorchSettings):
                yield from self._asked_findings(index, arm)
        if not (self.prompt_tokens or self.concurrency or self.users or self.equal_memory or self.training_tokens):
            yield Finding(("prompt_tokens",), "there is nothing to measure: give lengths here, or another table")
        if self.equal_memory is not None:
            for index, arm in enumerate(self.arms):
                if not isinstance(self.engine_of(arm), TorchSettings):
                    message = f"only the torch engine's memory is known, and arm {arm.name} has another; remove it"
                    yield Finding(("equal_memory",), message, (("engine",), ("arms", index, "engine")))
        if self.training_tokens and not isinstance(self.engine, TorchSettings):
            message = f"only the torch engine measures training passes, and engine is {self.engine.kind}; remove it"
            yield Finding(("training_tokens",), message, (("engine",),))
        elif self.training_tokens and not any(isinstance(self.engine_of(arm), TorchSettings) for arm in self.arms):
            message = "training passes take their shape from an arm on the torch engine, and there is none; remove it"
            yield Finding(("training_tokens",), message, (("arms",),))

    def _asked_findings(self, index: int, arm: BenchArm) -> Iterator[Finding]:
        """Yield what an arm asks for that its server does not have."""
        kind = self.engine_of(arm).kind
        others: tuple[Loc, ...] = (("engine",), ("arms", index, "engine"))
        if self.random_weights is not None:
            message = f"only the torch engine makes random weights, and arm {arm.name} has engine {kind}"
            yield Finding(("random_weights",), message, others)
        yield from server_findings(index, arm, kind, others)
