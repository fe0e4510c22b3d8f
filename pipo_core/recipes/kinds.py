"""The table of recipe kinds."""

from typing import TypeAlias

from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe

JobKind: TypeAlias = TrainRecipe | DistillRecipe | RolloutRecipe | BuildRecipe | MergeRecipe | EvalRecipe | BenchRecipe
Recipe: TypeAlias = JobKind | PipelineRecipe

KINDS: dict[str, type[Recipe]] = {
    "train": TrainRecipe,
    "distill": DistillRecipe,
    "rollout": RolloutRecipe,
    "build": BuildRecipe,
    "merge": MergeRecipe,
    "eval": EvalRecipe,
    "bench": BenchRecipe,
    "pipeline": PipelineRecipe,
}
