"""`kind: rollout`: a model answers problems several times (the teacher's answers)."""

from typing import Literal

from pydantic import Field

from pipo_core.recipes.base import JobRecipe, ModelRef, Seed
from pipo_core.recipes.common import Budget, EngineSettings, Problems, Sampling, TorchSettings
from pipo_core.recipes.methods import PLAIN, MethodName


class RolloutRecipe(JobRecipe):
    """Samples answers and marks the correct ones."""

    kind: Literal["rollout"] = Field(default="rollout", description="The kind of recipe.")
    model: ModelRef = Field(description="The checkpoint that answers.", examples=["x/y"])
    method: MethodName = Field(default=PLAIN.name, description="How it decodes: regular for an uncompressed model.")
    problems: Problems = Problems()
    samples: int = Field(default=4, ge=1, description="Answers per problem (paper: 4).")
    sampling: Sampling = Sampling()
    budget: Budget = Field(description="How long an answer may become.", examples=[{"tokens": 1}])
    engine: EngineSettings = Field(default=TorchSettings(), description="What answers: torch here, or servers.")
    seed: Seed = 0
