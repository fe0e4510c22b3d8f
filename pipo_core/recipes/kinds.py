"""The table of recipe kinds."""

from typing import TypeAlias

from pipo_core.recipes.base import RecipeModel
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.calibrate import CalibrateRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.recipes.suite import SuiteFile, SuiteGroup

JobKind: TypeAlias = (
    TrainRecipe | DistillRecipe | RolloutRecipe | BuildRecipe | MergeRecipe | EvalRecipe | BenchRecipe | CalibrateRecipe
)
Recipe: TypeAlias = JobKind | PipelineRecipe

KINDS: dict[str, type[Recipe]] = {
    "train": TrainRecipe,
    "distill": DistillRecipe,
    "rollout": RolloutRecipe,
    "build": BuildRecipe,
    "merge": MergeRecipe,
    "eval": EvalRecipe,
    "bench": BenchRecipe,
    "calibrate": CalibrateRecipe,
    "pipeline": PipelineRecipe,
}
"""Recipes: what a command runs."""

SUITE_KINDS: dict[str, type[SuiteFile] | type[SuiteGroup]] = {"suite": SuiteFile, "suites": SuiteGroup}
"""Files that recipes of `kind: eval` name."""

FILE_KINDS: dict[str, type[RecipeModel]] = {**KINDS, **SUITE_KINDS}
"""All kinds of files."""
