"""Many requests at once behind one interface: evaluation, rollouts and benchmarks know only `Engine`."""

from pipo_core.engine.api import Completion, Engine, Request
from pipo_core.engine.open import open_engine

__all__ = ["Completion", "Engine", "Request", "open_engine"]
