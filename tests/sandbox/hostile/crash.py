# Makes the interpreter crash.
# ruff: noqa
# mypy: ignore-errors

import ctypes

ctypes.string_at(0)
