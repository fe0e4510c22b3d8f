"""Writes the filters of system calls, as the classic BPF programs that the kernel takes.

Namespaces take away files and the network; the filters take away parts of the kernel that a program in them could
still reach. `SANDBOX` is for everything inside, `PROGRAM` comes on top for the untrusted program: it may start threads
but no processes, and open no sockets. Numbers are those of Linux's `unistd.h`.
"""

import errno
import platform
import struct

_EVERYWHERE: dict[str, tuple[int | None, int | None]] = {
    # Other processes' memory, descriptors and identity.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # Mounts and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    # Parts of the kernel in which holes have been found again and again.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "vmsplice": (278, 75),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18),
    "uselib": (134, None),
    "nfsservctl": (180, 42),
    # The machine itself.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    # Memory that no limit of a process counts, and that outlives it.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
"""Denied to everything inside, by name: the numbers on x86-64 and on ARM64."""

_PROGRAM: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Attributes of the work directory would tell the next run something.
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
}
"""Denied to the untrusted program besides."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Of each machine: the place of its numbers above, and `AUDIT_ARCH_…` of its system calls."""
_CLONE, _CLONE3, _PRCTL, _PRLIMIT64 = (56, 220), (435, 435), (157, 167), (302, 261)
_LAST = 450
"""Newer system calls do not exist for a program: whether they are harmless was not known when this was written."""
_CLONE_THREAD, _PR_SET_DUMPABLE = 0x00010000, 4

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; of an argument, its lower half on a little-endian machine."""
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def supported() -> bool:
    """Return whether filters can be written for this machine."""
    return platform.machine() in _ARCHITECTURES


def sandbox_filter() -> bytes:
    """Return the filter for everything in a sandbox."""
    return _assemble(_EVERYWHERE, may_start_processes=True)


def program_filter() -> bytes:
    """Return the filter that the untrusted program has besides."""
    return _assemble(_PROGRAM, may_start_processes=False)


def _assemble(denied: dict[str, tuple[int | None, int | None]], *, may_start_processes: bool) -> bytes:
    """Return the `struct sock_filter` instructions of a filter that denies these calls and allows the others."""
    column, architecture = _ARCHITECTURES[platform.machine()]
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, _LAST),  # the numbers of x32 too
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for numbers in denied.values():
        number = numbers[column]
        if number is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    if not may_start_processes:
        code += [
            # Its flags lie in memory, where a filter cannot look. Without it, glibc starts threads by clone.
            (_EQUAL, 0, 1, _CLONE3[column]),
            (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
            (_EQUAL, 0, 4, _CLONE[column]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_ANY_BIT, 1, 0, _CLONE_THREAD),
            (_RETURN, 0, 0, _ERROR | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
            # With it, a crash would start the machine's handler of core dumps, outside of the sandbox.
            (_EQUAL, 0, 4, _PRCTL[column]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_EQUAL, 0, 1, _PR_SET_DUMPABLE),
            (_RETURN, 0, 0, _ERROR | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
            # Limits of other processes: the driver has the program's user where no root starts the sandbox.
            (_EQUAL, 0, 3, _PRLIMIT64[column]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _ERROR | errno.EPERM),
        ]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
