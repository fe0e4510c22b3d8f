# Takes memory that no limit of a process counts: shared segments, files in memory, message queues.
# ruff: noqa
# mypy: ignore-errors

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
for _ in range(64):
    if libc.shmget(0, 1 << 30, 0o1600) >= 0:
        print("BREACH shmget")
        break
try:
    os.memfd_create("hoard")
    print("BREACH memfd_create")
except OSError:
    pass
if libc.mq_open(b"/hoard", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0:
    print("BREACH mq_open")
