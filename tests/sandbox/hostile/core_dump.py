# Becomes dumpable and crashes, so that the machine's handler of core dumps reads its memory outside of the sandbox.
# ruff: noqa
# mypy: ignore-errors

import ctypes
import resource

libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(4, 1, 0, 0, 0) == 0:
    print("BREACH made dumpable", flush=True)
if libc.prctl(3, 0, 0, 0, 0) != 0:
    print("BREACH dumpable", flush=True)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ctypes.string_at(0)
