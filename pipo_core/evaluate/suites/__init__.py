"""Benchmarks by name. A new one is a file beside `tiny.py` and a line in `SUITES`."""

from collections.abc import Mapping

from pipo_core.evaluate.suites.base import Suite, SuiteOpener
from pipo_core.evaluate.suites.tiny import open_tiny

SUITES: Mapping[str, SuiteOpener] = {"tiny": open_tiny}

__all__ = ["SUITES", "Suite", "SuiteOpener"]
