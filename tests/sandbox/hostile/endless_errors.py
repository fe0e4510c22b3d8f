# Writes to standard error for ever.
# ruff: noqa
# mypy: ignore-errors

import os

while True:
    os.write(2, b"x" * (1 << 16))
