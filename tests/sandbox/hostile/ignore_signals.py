# Ignores every signal that can be ignored, and loops.
# ruff: noqa
# mypy: ignore-errors

import signal

for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
