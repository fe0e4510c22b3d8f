"""Opens an engine of any kind; holds the one table of engine kinds.

A new kind is a settings class with its own ``kind`` in `recipes.common.EngineSettings`, a file that opens it, and a
line here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipo_core.engine.api import Engine
from pipo_core.engine.remote_opening import RemoteOpener, SGLangOpener
from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.methods import Decoding


class Opener(Protocol):
    """Opens engines of one kind, which may share weights."""

    def open(self, source: Path | str | None, decoding: Decoding, settings: Any) -> Engine:
        """Return an engine on a checkpoint folder, on random weights in a published shape, or on an unknown model."""
        ...

    def check(self, settings: Any) -> None:
        """Check what can be checked of the surroundings before a job is planned for hours.

        Raises:
            PipoError: naming what is missing.
        """
        ...


OpenEngine = Callable[[Path | None, Decoding, EngineSettings], Engine]
"""From a checkpoint folder, a decoding and settings to an engine; only servers' models may have no folder here."""

OPENERS: Mapping[str, Callable[[], Opener]] = {
    "torch": TorchOpener,
    "sglang": SGLangOpener,
    "remote": RemoteOpener,
}


class Engines:
    """Opens engines of any kind; engines of one kind and checkpoint share its weights."""

    def __init__(self) -> None:
        self._openers: dict[str, Opener] = {}

    def open(self, source: Path | str | None, decoding: Decoding, settings: EngineSettings) -> Engine:
        """Return an engine.

        Args:
            source: a checkpoint folder, or the name of a published shape for random weights; None for servers of a
                model of which nothing is here.
            decoding: the method with its options.
            settings: the engine's.

        Raises:
            UsageError: for an unknown shape, or an option that the method does not have.
            CheckpointError: if the folder is not a readable checkpoint.
            MachineError: if the device does not exist, or the batch does not fit its memory.
        """
        opener = self._openers.get(settings.kind)
        if opener is None:
            opener = self._openers[settings.kind] = OPENERS[settings.kind]()
        return opener.open(source, decoding, settings)


def check_engine(settings: EngineSettings) -> None:
    """Check that what settings ask for is there: a device, SGLang, or servers that answer.

    Raises:
        PipoError: naming what is missing.
    """
    OPENERS[settings.kind]().check(settings)


def open_engine(ckpt: Path | None, decoding: Decoding, settings: EngineSettings) -> Engine:
    """Return an engine on a checkpoint folder, or on servers of a model of which nothing is here.

    Raises:
        UsageError: for an option that the method does not have.
        CheckpointError: if the folder is not a readable checkpoint.
        MachineError: if the device does not exist, or the batch does not fit its memory.
    """
    return Engines().open(ckpt, decoding, settings)
