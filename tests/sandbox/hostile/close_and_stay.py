# Closes its outputs, so that it looks ended, and stays.
# ruff: noqa
# mypy: ignore-errors

import os
import time

os.closerange(0, 4096)
time.sleep(3600)
