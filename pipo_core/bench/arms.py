"""Opens the engines that a bench compares; engines on one checkpoint share its weights."""

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
"""Opens an engine on a checkpoint folder, or on random weights of a named shape."""


@dataclass(frozen=True)
class OpenArm:
    """One entry of the comparison: an arm with one decoding, and the engine that runs it."""

    name: str
    decoding: Decoding
    engine: Engine

    @property
    def label(self) -> str:
        """The entry's name in tables and plots."""
        return self.decoding.label(self.name)


def open_arms(recipe: BenchRecipe, settings: EngineSettings, open_engine: OpenEngine | None = None) -> list[OpenArm]:
    """Return the arms of a bench with their engines, in the recipe's order.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        settings: settings of every engine.
        open_engine: opens an engine; None for one that shares weights between engines.

    Raises:
        UsageError: if the recipe names an unknown shape, or an arm has no checkpoint.
        CheckpointError: if a checkpoint cannot be read.
        MachineError: if the device is absent or the batch does not fit.
    """
    if recipe.random_weights is not None and recipe.random_weights not in SHAPES:
        raise UsageError(f"no shape is called {recipe.random_weights!r}", hint=f"one of {', '.join(SHAPES)}")
    open_engine = open_engine or Engines().open
    opened = []
    for arm in recipe.arms:
        source = recipe.random_weights if arm.ckpt is None else Path(arm.ckpt)
        if source is None:
            raise UsageError(f"arm {arm.name} has no checkpoint")
        for decoding in arm.decodings():
            opened.append(OpenArm(arm.name, decoding, open_engine(source, decoding, settings)))
    return opened
