# Closes all descriptors and goes on.
# ruff: noqa
# mypy: ignore-errors

import os
import time

os.closerange(0, 4096)
time.sleep(0.1)
