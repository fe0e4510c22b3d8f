"""`kind: eval`: accuracy of several arms on the same problems, with the same seeds."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.arms import Arm, baseline_findings, server_findings
from pipo_core.recipes.base import Finding, JobRecipe, RecipeModel, Seed, rows_ref, unique
from pipo_core.recipes.common import Budget, EngineSettings, Sampling, TorchSettings
from pipo_core.recipes.methods import PAIRS

SuiteName = Literal["tiny", "math"]
BenchmarkRef = Annotated[str, rows_ref("test.jsonl", kind="benchmark")]

BENCHMARKS: Mapping[SuiteName, str] = {"math": "aime25"}
"""The suites with published problems, and the problems' names in the catalog; the other suites generate theirs."""


class EvalProblems(RecipeModel):
    """How many problems are asked."""

    count: int | None = Field(
        default=None,
        ge=1,
        description="Number of problems (a benchmark's first); null: 500 of tiny, all of a benchmark.",
    )
    seed: Seed = 0


class EvalRecipe(JobRecipe):
    """Measures avg@k and pass@k with intervals, tokens a slot, and paired differences."""

    kind: Literal["eval"] = Field(default="eval", description="The kind of recipe.")
    suite: SuiteName = Field(
        default="tiny", description="The problems: tiny is generated arithmetic, math is AIME 2025."
    )
    benchmark: BenchmarkRef | None = Field(
        default=None,
        description="Where the suite's problems are: a catalog name (math: aime25), a hub id or a path; not for tiny.",
    )
    problems: EvalProblems = EvalProblems()
    samples: int = Field(default=4, ge=1, description="Answers per problem: the k of avg@k (paper: 4).")
    seed: Seed = 0
    sampling: Sampling = Sampling()
    budget: Budget = Field(description="How long an answer may become.", examples=[{"tokens": 1}])
    arms: Annotated[list[Arm], Field(min_length=1)] = Field(
        description="The arms to compare.", examples=[[{"name": "x", "method": PAIRS.name, "ckpt": "x/y"}]]
    )
    baseline: str | None = Field(default=None, description="Name of the arm that paired differences are taken against.")
    engine: EngineSettings = Field(default=TorchSettings(), description="What answers: torch here, or servers.")

    def findings(self) -> Iterator[Finding]:
        """Suite math needs a benchmark, suite tiny takes none; arms have different names; baseline names an arm.

        Options of methods besides tau are the torch engine's.
        """
        yield from self._suite_findings()
        yield from unique([arm.name for arm in self.arms], "arms", "arm")
        yield from baseline_findings(self.baseline, self.arms)
        if not isinstance(self.engine, TorchSettings):
            for index, arm in enumerate(self.arms):
                yield from server_findings(index, arm, self.engine.kind, (("engine",),))

    def _suite_findings(self) -> Iterator[Finding]:
        usual = BENCHMARKS.get(self.suite)
        if usual is None:
            if self.benchmark is not None:
                yield Finding(("benchmark",), f"suite {self.suite} generates its problems; remove it", (("suite",),))
            return
        if self.benchmark is None:
            message = f"suite {self.suite} needs its problems: benchmark={usual}, or a local copy"
            yield Finding(("benchmark",), message, (("suite",),))
        if self.problems.seed:
            message = f"the problems of suite {self.suite} are not generated, so no seed applies; remove it"
            yield Finding(("problems", "seed"), message, (("suite",),))
