"""Opens the engines that a bench compares; engines on one checkpoint share its weights."""

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipo_core.engine import Engine
from pipo_core.errors import UsageError
from pipo_core.model.shapes import shape_config
from pipo_core.recipes.bench import BenchArm, BenchRecipe
from pipo_core.recipes.common import EngineSettings, RemoteSettings, TorchSettings
from pipo_core.recipes.methods import Decoding

OpenEngine = Callable[[Path | str, Decoding, EngineSettings], Engine]
"""Opens an engine on a checkpoint folder, or on random weights of a named shape."""


@dataclass(frozen=True)
class OpenArm:
    """One entry of the comparison: an arm with one decoding, and the engine that runs it.

    Attributes:
        name: the arm's.
        decoding: how it decodes.
        engine: what answers for it.
        where: what the engine is, in a word: ``torch``, ``sglang``, or the addresses of the servers that it asks.
        salt: makes the beginning of each prompt its own. A server keeps what it has read, so no two prompts may begin
            alike, not even of two arms that ask the same server. Empty if nothing is kept.
    """

    name: str
    decoding: Decoding
    engine: Engine
    where: str = "torch"
    salt: str = ""

    @property
    def label(self) -> str:
        """The entry's name in tables and plots."""
        return self.decoding.label(self.name)


def open_arms(recipe: BenchRecipe, open_engine: OpenEngine) -> list[OpenArm]:
    """Return the arms of a bench with their engines, in the recipe's order.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        open_engine: opens an engine.

    Raises:
        UsageError: if the recipe names an unknown shape, or an arm has no checkpoint.
        CheckpointError: if a checkpoint cannot be read.
        MachineError: if the device is absent, the batch does not fit, or a server is not there or does not start.
    """
    if recipe.random_weights is not None:
        shape_config(recipe.random_weights)
    requests = max([1, *recipe.concurrency, *(recipe.users.requests if recipe.users else ())])
    opened: list[OpenArm] = []
    with ExitStack() as failing:
        for arm in recipe.arms:
            source = source_of(recipe, arm)
            settings = recipe.engine_of(arm)
            for decoding in arm.decodings():
                engine = open_engine(source, decoding, _with_places(settings, requests))
                failing.callback(engine.close)
                # Random, so that a server has not kept the prompts of an earlier bench either.
                salt = "" if isinstance(settings, TorchSettings) else secrets.token_hex()
                opened.append(OpenArm(arm.name, decoding, engine, _where(settings), salt))
        failing.pop_all()
    return opened


def source_of(recipe: BenchRecipe, arm: BenchArm) -> Path | str:
    """Return an arm's checkpoint folder, or the name of the shape whose weights are random.

    Raises:
        UsageError: if it has neither.
    """
    source = recipe.random_weights if arm.ckpt is None else Path(arm.ckpt)
    if source is None:
        raise UsageError(f"arm {arm.name} has no checkpoint")
    return source


def _with_places(settings: EngineSettings, requests: int) -> EngineSettings:
    """Return the settings with as many requests at once as the bench asks."""
    places = "batch" if isinstance(settings, TorchSettings) else "concurrency"
    return settings.model_copy(update={places: requests})


def _where(settings: EngineSettings) -> str:
    if isinstance(settings, RemoteSettings):
        return " ".join(urlsplit(url).netloc for url in settings.urls)
    return settings.kind
