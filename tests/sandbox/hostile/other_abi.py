# Starts a process through another numbering of system calls.
# ruff: noqa
# mypy: ignore-errors

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for number in (57, 58, 56, 41):
    if libc.syscall(0x40000000 + number, 0, 0, 0, 0, 0) >= 0:
        print("BREACH", number, os.getpid())
