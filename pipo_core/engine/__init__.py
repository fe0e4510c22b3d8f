"""Engines answer many requests at once; evaluation, rollouts, chat and benchmarks use only the protocol `Engine`."""

from pipo_core.engine.api import (
    CapacityError,
    Completion,
    Delta,
    Engine,
    EngineStats,
    FinishReason,
    Reports,
    Request,
    Slot,
    SteppedEngine,
    Written,
    request_seed,
)
from pipo_core.engine.opening import Engines, check_engine, open_engine

__all__ = [
    "CapacityError",
    "Completion",
    "Delta",
    "Engine",
    "EngineStats",
    "Engines",
    "FinishReason",
    "Reports",
    "Request",
    "Slot",
    "SteppedEngine",
    "Written",
    "check_engine",
    "open_engine",
    "request_seed",
]
