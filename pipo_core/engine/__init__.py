"""Many requests at once behind one interface: evaluation, rollouts and benchmarks know only `Engine`."""

from pipo_core.engine.api import Completion, Engine, Request, request_seed
from pipo_core.engine.open import EngineOpener, open_engine

__all__ = ["Completion", "Engine", "EngineOpener", "Request", "open_engine", "request_seed"]
