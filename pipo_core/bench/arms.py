"""What a bench compares, opened: engines on one checkpoint share its weights, and random weights are made once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipo_core.engine import Engine, Engines
from pipo_core.errors import UsageError
from pipo_core.model.shapes import SHAPES
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.methods import Decoding

OpenEngine = Callable[[Path | str, Decoding, EngineSettings], Engine]
"""From a checkpoint folder or a shape's name, a decoding and settings to what runs it."""


@dataclass(frozen=True)
class Contender:
    """One row of the comparison: an arm with one way of decoding, and the engine that runs it."""

    name: str
    decoding: Decoding
    engine: Engine

    @property
    def label(self) -> str:
        """The row's name in tables and plots."""
        return self.decoding.label(self.name)


def open_arms(recipe: BenchRecipe, settings: EngineSettings, open_engine: OpenEngine | None = None) -> list[Contender]:
    """Return the rows of a bench, in the recipe's order.

    Raises:
        UsageError: if the recipe names a shape that is not known.
        CheckpointError: for a checkpoint that cannot be read.
        MachineError: for a device that is not there, or a batch that does not fit.
    """
    if recipe.random_weights is not None and recipe.random_weights not in SHAPES:
        raise UsageError(f"no shape is called {recipe.random_weights!r}", hint=f"one of {', '.join(SHAPES)}")
    open_engine = open_engine or Engines().open
    contenders = []
    for arm in recipe.arms:
        source = recipe.random_weights if arm.ckpt is None else Path(arm.ckpt)
        if source is None:
            raise UsageError(f"arm {arm.name} has no checkpoint")
        for decoding in arm.decodings():
            contenders.append(Contender(arm.name, decoding, open_engine(source, decoding, settings)))
    return contenders
