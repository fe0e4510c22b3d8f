# Sends signals to its parent, to process 1, and to the process outside by its number.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os
import signal

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV, signal.SIGXCPU, signal.SIGKILL):
    for process in (os.getppid(), 1, target["pid"]):
        try:
            os.kill(process, number)
        except OSError:
            pass
