# Mounts, makes namespaces, changes the root, and traces its parent.
# ruff: noqa
# mypy: ignore-errors

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
attempts = {
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "bind": lambda: libc.mount(b"/", b"/tmp", None, 4096, None),
    "remount": lambda: libc.mount(None, b"/", None, 32 | 4096, None),
    "umount": lambda: libc.umount2(b"/usr/lib", 2),
    "unshare user": lambda: libc.unshare(0x10000000),
    "unshare mount": lambda: libc.unshare(0x00020000),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "ptrace parent": lambda: libc.ptrace(16, 1, None, None),
    "ptrace me": lambda: libc.ptrace(0, 0, None, None),
    "setuid": lambda: libc.setuid(0) or (os.getuid() and -1),
    "personality": lambda: libc.personality(0x0040000),
    "sethostname": lambda: libc.sethostname(b"breach", 6),
    "clone with new user": lambda: libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000011, 0, 0, 0, 0),
    "clone3": lambda: libc.syscall(435, ctypes.create_string_buffer(88), 88),
    "io_uring": lambda: libc.syscall(425, 8, ctypes.create_string_buffer(120)),
    "bpf": lambda: libc.syscall(321 if os.uname().machine == "x86_64" else 280, 0, ctypes.create_string_buffer(64), 64),
    "keyctl": lambda: libc.syscall(250 if os.uname().machine == "x86_64" else 219, 0, -3, 1),
    "userfaultfd": lambda: libc.syscall(323 if os.uname().machine == "x86_64" else 282, 0),
    "newer calls": lambda: libc.syscall(457, 0, 0, 0, 0),
}
for name, attempt in attempts.items():
    if attempt() >= 0:
        print("BREACH", name, flush=True)
