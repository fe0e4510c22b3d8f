"""Benchmarks by name.

To add one: a file in this folder, a line in `SUITES`, its name in `recipes.evaluate` (with the benchmark that it reads)
and in the command line's choices, and a recipe `NAME/eval.yaml` with its standard settings.
"""

from collections.abc import Mapping

from pipo_core.evaluate.suites.base import Suite, SuiteOpener
from pipo_core.evaluate.suites.math import open_math
from pipo_core.evaluate.suites.tiny import open_tiny
from pipo_core.recipes.evaluate import SuiteName

SUITES: Mapping[SuiteName, SuiteOpener] = {"tiny": open_tiny, "math": open_math}

__all__ = ["SUITES", "Suite", "SuiteOpener"]
