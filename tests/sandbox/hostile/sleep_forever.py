# Sleeps.
# ruff: noqa
# mypy: ignore-errors

import time

while True:
    time.sleep(3600)
