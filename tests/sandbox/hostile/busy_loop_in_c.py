# Stays in one call of the interpreter's C code, where no Python signal handler runs.
# ruff: noqa
# mypy: ignore-errors

import re

re.match(r"(a+)+$", "a" * 64 + "b")
