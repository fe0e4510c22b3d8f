# Looks at other processes: their memory, descriptors and limits.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import ctypes
import os
import resource

libc = ctypes.CDLL(None, use_errno=True)
for place in ("/proc/1/mem", "/proc/1/fd", "/proc/self/fd", f"/proc/{target['pid']}/cmdline"):
    if os.path.exists(place):
        print("BREACH", place)
buffer = ctypes.create_string_buffer(64)
for call in (
    (310, 311, 312, 438, 440, 448, 101) if os.uname().machine == "x86_64" else (270, 271, 272, 438, 440, 448, 117)
):
    for process in (1, target["pid"]):
        if libc.syscall(call, process, ctypes.byref(buffer), 1, ctypes.byref(buffer), 1, 0) >= 0:
            print("BREACH", call)
try:
    resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))
    print("BREACH prlimit")
except (OSError, PermissionError):
    pass
