# Leaves a grandchild behind that has a session of its own and outlives its parents.
# ruff: noqa
# mypy: ignore-errors

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(64):
            try:
                os.close(number)
            except OSError:
                pass
        while True:
            time.sleep(1)
    os._exit(0)
print("held")
