# Writes one file until the disk is full, also by truncating, allocating and mapping.
# ruff: noqa
# mypy: ignore-errors

import os

written = 0
try:
    with open("huge", "wb", buffering=0) as file:
        while written < 1 << 32:
            written += file.write(bytes(1 << 20))
    print("BREACH wrote", written)
except OSError:
    pass
for attempt in (os.truncate, lambda name, size: os.posix_fallocate(os.open(name, os.O_RDWR), 0, size)):
    try:
        attempt("huge", 1 << 40)
        print("BREACH grew")
    except OSError:
        pass
