"""`kind: calibrate`: what each threshold costs and gives on this machine, by the number of requests."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipo_core.recipes.arms import Share
from pipo_core.recipes.base import Finding, ModelRef, RecipeModel, repeated, rows_ref
from pipo_core.recipes.bench import BenchArm, BenchRecipe, Users
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.evaluate import EvalArm, EvalProblems, EvalRecipe, SuiteJob
from pipo_core.recipes.methods import PAIRS, PLAIN, VERIFIED, Decoding

SHARES = (0.0, 0.5, 1.0)
"""Shares of kept drafts at which a pair step is timed; a step's time depends on little else of a threshold."""


class Uncompressed(RecipeModel):
    """The uncompressed model whose decoding pairs are compared with."""

    ckpt: ModelRef = Field(description="Checkpoint: a folder, catalog name, hub id or stage:NAME.", examples=["x/y"])
    drafts: list[Annotated[int, Field(ge=1, le=16)]] = Field(
        default=[1, 3], description="eagle's drafts per step, each of them measured; empty for a model without MTP."
    )


class AskedRows(RecipeModel):
    """Rows of a training set whose questions are asked; nothing is graded."""

    file: Annotated[str, rows_ref("train.jsonl")] = Field(
        description="The rows: a training set's folder or a JSON-lines file.", examples=["x/y"]
    )
    count: int = Field(default=200, ge=1, description="At most so many rows, the first.")


class Loads(RecipeModel):
    """The loads at which steps are timed: so many requests that decode together."""

    context: int = Field(default=2048, ge=2, description="Tokens of each request's prompt.")
    requests: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        default=[1, 4, 16, 64], description="Requests that decode together."
    )
    new_tokens: int = Field(default=64, ge=16, description="Tokens of each timed answer, PAD not counted.")
    trials: int = Field(default=5, ge=1, description="Measured rounds of each load, after one warm-up.")


class CalibrateRecipe(SuiteJob):
    """Measures acceptance and accuracy by threshold and the time of steps by load, and writes a profile."""

    speed_is_the_result: ClassVar[bool] = True

    kind: Literal["calibrate"] = Field(default="calibrate", description="The kind of recipe.")
    suite: str | None = Field(  # type: ignore[assignment]  # null where rows are asked instead
        default=None,
        min_length=1,
        description="What is asked: a shipped suite or group (pipo recipes ls, suites/), or a suite's file; null: the "
        "rows.",
    )
    rows: AskedRows | None = Field(
        default=None,
        description="Instead of a suite: questions of a training set. Nothing is graded, so accuracy is not known.",
    )
    ckpt: ModelRef = Field(
        description="The pair checkpoint: a folder, catalog name, hub id or stage:NAME.", examples=["x/y"]
    )
    regular: Uncompressed | None = Field(
        default=None, description="The uncompressed model to compare with; null: only pairs are measured."
    )
    tau: Annotated[list[Share], Field(min_length=1)] = Field(
        default=[0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99], description="Thresholds that are measured."
    )
    draft_vocab: Annotated[list[Annotated[int, Field(ge=1)] | None], Field(min_length=1)] = Field(
        default=[None],
        description="Draft vocabularies that are measured, each with every threshold: numbers of the training set's "
        "most frequent tokens; null: all tokens.",
    )
    loads: Loads = Loads()
    engine: TorchSettings = Field(
        default=TorchSettings(), description="How this process decodes; batch is for the questions alone."
    )

    def findings(self) -> Iterator[Finding]:
        """Suite or rows, not both; rows need a budget and read nothing of suites; steps are as the server's.

        No number is given twice.
        """
        if (self.suite is None) == (self.rows is None):
            yield Finding(("suite",), "give suite or rows, one of them", (("rows",),))
        if self.rows is not None:
            yield from self._rows_findings()
        for key, numbers in (("tau", self.tau), ("draft_vocab", self.draft_vocab)):
            yield from repeated((key,), numbers)
        yield from repeated(("loads", "requests"), self.loads.requests)
        if self.regular is not None:
            yield from repeated(("regular", "drafts"), self.regular.drafts)
        for key, what in (("compile", "compiles no steps"), ("quantization", "stores no matrices in 8 bits")):
            if getattr(self.engine, key):
                yield Finding(("engine", key), f"pipo serve {what}, so its times are others; remove it")

    def _rows_findings(self) -> Iterator[Finding]:
        unread: dict[str, Any] = {"profile": None, "benchmark": {}, "problems": EvalProblems(), "code_workers": None}
        for key, nothing in unread.items():
            if getattr(self, key) != nothing:
                yield Finding((key,), "nothing reads it where rows are asked; remove it", (("rows",),))
        if self.budget is None:
            yield Finding(("budget",), "missing: rows do not say how long an answer may become", (("rows",),))

    # ------------------------------------------------------------ what is measured

    def pairs(self) -> list[tuple[str, Decoding]]:
        """Return name and decoding of every pair setting: each threshold with each draft vocabulary."""
        return [
            (name, Decoding(PAIRS.name, tau=tau, draft_vocab=vocabulary))
            for name, vocabulary in self._pair_arms()
            for tau in self.tau
        ]

    def uncompressed(self) -> list[tuple[str, Decoding]]:
        """Return name and decoding of what pairs are compared with; none without an uncompressed model."""
        if self.regular is None:
            return []
        method = VERIFIED.name
        verified = [(f"{method}-{drafts}", Decoding(method, drafts=drafts)) for drafts in self.regular.drafts]
        return [(PLAIN.name, Decoding(PLAIN.name)), *verified]

    def evaluation(self) -> EvalRecipe:
        """Return the evaluation that measures acceptance and accuracy of every setting.

        Raises:
            ValidationError: if no suite is named.
        """
        of_suites = {name: getattr(self, name) for name in SuiteJob.model_fields if name != "kind"}
        arms = [
            EvalArm(name=name, method=PAIRS.name, ckpt=self.ckpt, tau=self.tau, draft_vocab=vocabulary)
            for name, vocabulary in self._pair_arms()
        ]
        regular = None if self.regular is None else self.regular.ckpt
        others = [
            EvalArm(name=name, method=decoding.method, ckpt=regular, drafts=decoding.drafts)
            for name, decoding in self.uncompressed()
        ]
        return EvalRecipe(**of_suites, arms=[*arms, *others], engine=self.engine)

    def bench(self) -> BenchRecipe:
        """Return the bench that times the steps of every load."""
        arms = [
            BenchArm(name=name, method=PAIRS.name, ckpt=self.ckpt, acceptance=list(SHARES), draft_vocab=vocabulary)
            for name, vocabulary in self._pair_arms()
        ]
        regular = None if self.regular is None else self.regular.ckpt
        others = [
            BenchArm(name=name, method=decoding.method, ckpt=regular, drafts=decoding.drafts)
            for name, decoding in self.uncompressed()
        ]
        return BenchRecipe(
            arms=[*arms, *others], prompt_tokens=[], users=self.users(self.loads.requests), engine=self.engine
        )

    def users(self, requests: Sequence[int]) -> Users:
        """Return the loads of some numbers of requests."""
        loads = self.loads
        return Users(context=[loads.context], requests=list(requests), new_tokens=loads.new_tokens, trials=loads.trials)

    def _pair_arms(self) -> list[tuple[str, int | None]]:
        return [(PAIRS.name if one is None else f"{PAIRS.name}-{one}", one) for one in self.draft_vocab]
