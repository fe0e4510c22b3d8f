# Starts threads with small stacks until the machine has no room for more; more than 1,000 is a breach.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import threading
import time

threading.stack_size(1 << 15)
made = 0
try:
    while made <= 1000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
finally:
    print("BREACH" if made > 1000 else "held", made, flush=True)
