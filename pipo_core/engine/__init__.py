"""Many requests at once behind one interface: evaluation, rollouts and benchmarks know only `Engine`."""

from pipo_core.engine.api import (
    CapacityError,
    Completion,
    Delta,
    Engine,
    EngineStats,
    FinishReason,
    Request,
    Slot,
    Written,
    request_seed,
)
from pipo_core.engine.open import EngineOpener, open_engine

__all__ = [
    "CapacityError",
    "Completion",
    "Delta",
    "Engine",
    "EngineOpener",
    "EngineStats",
    "FinishReason",
    "Request",
    "Slot",
    "Written",
    "open_engine",
    "request_seed",
]
