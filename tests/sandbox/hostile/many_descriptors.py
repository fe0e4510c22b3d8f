# Opens pipes and makes them as large as the kernel allows.
# ruff: noqa
# mypy: ignore-errors

import fcntl
import os

opened = 0
try:
    while opened < 2000:
        for end in os.pipe():
            fcntl.fcntl(end, 1031, 1 << 20)
        opened += 2
except OSError:
    pass
if opened > 1000:
    print("BREACH", opened)
