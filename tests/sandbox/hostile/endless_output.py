# Writes to standard output for ever.
# ruff: noqa
# mypy: ignore-errors

import os

while True:
    os.write(1, bytes(1 << 16))
