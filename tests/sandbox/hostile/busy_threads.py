# Uses processor time in many threads after the first one has gone to sleep.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import hashlib
import threading
import time


def burn():
    while True:
        hashlib.pbkdf2_hmac("sha512", b"x", b"y", 100_000)


for _ in range(16):
    threading.Thread(target=burn).start()
time.sleep(3600)
