"""Loaded by Python at the start of each observed process: counts steps and causes a fault at a chosen one.

A step is a call that changes the file system below one folder: a file opened for writing, a write of ours, a rename, a
removal, a new folder, a flush. Each process counts its own, so that the same step comes at the same place in every run.
At the chosen one of the chosen role (`pipo`, or `worker`: the process that trains) everything that takes part is killed
(`kill`), or this process alone (`alone`), or Ctrl-C is pressed (`interrupt`). A kill at a write comes when half of it
is done. What has not been flushed may be lost, so a kill at a flush cuts the file first.
"""

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PLAN = "PIPO_TESTS_FAULT"
_EVENTS = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.truncate": None}
"""Calls that are steps, each with the position of the folder's handle among its arguments, if it has one."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TORN_BYTES = 7


class Fault:
    """Counts the steps of this process and acts at one of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._root = plan["root"].rstrip("/") + "/"
        self.log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._busy = False
        self._fsync, self._open = os.fsync, io.open
        self._role, self._steps = "", 0

    def become(self, role: str) -> None:
        """Count the steps of this process, from 0, as those of ``role``."""
        self._role, self._steps = role, 0
        os.write(self.log, f"{role} pid {os.getpid()}\n".encode())

    def arm(self) -> None:
        """Observe this process from now on; this cannot be undone."""
        os.fsync = self.flush  # type: ignore[assignment] # its parameter has another name
        io.open = self.open  # what paths open with; files that libraries open are flushed by us
        sys.addaudithook(self._hear)

    def flush(self, handle: Any) -> None:
        """Stand in for `os.fsync`."""
        number = handle if isinstance(handle, int) else handle.fileno()
        self._step("fsync", _open_path(number))
        self._fsync(handle)

    def open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """Stand in for `io.open`."""
        opened = self._open(file, mode, *arguments, **options)
        if {*mode} & {*"wax+"} and isinstance(file, str | os.PathLike):
            return _Written(opened, lambda half: self._step("write", os.fspath(file), half))
        return opened

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES:
                self._step("open", os.fsdecode(path))
        elif event in _EVENTS and isinstance(arguments[0], str | bytes | os.PathLike):
            path, place = os.fsdecode(arguments[0]), _EVENTS[event]
            if place is not None and arguments[place] != -1:
                path = f"{_open_path(arguments[place])}/{path}"
            if event == "os.rename":
                path = os.fsdecode(arguments[1])
            if event == "os.mkdir" and os.path.isdir(path):  # noqa: PTH112
                return  # it will change nothing
            self._step(event.removeprefix("os."), path)

    def _step(self, name: str, path: str, half: Callable[[], None] = lambda: None) -> None:
        path = os.path.abspath(path)  # noqa: PTH100 - cheap, and no path object's own calls in between
        if self._busy or not path.startswith(self._root):
            return
        self._busy = True
        self._steps += 1
        os.write(self.log, f"{self._role} {self._steps} {name} {path.removeprefix(self._root)}\n".encode())
        if (self._role, self._steps) == (self._plan["role"], self._plan["at"]):
            if self._plan["act"] == "interrupt":
                os.kill(self._processes()[0], signal.SIGINT)  # workers have a terminal of their own
            else:
                half()
                if name == "fsync":
                    _tear(path)
                self._kill(self._processes() if self._plan["act"] == "kill" else [])
        self._busy = False

    def _processes(self) -> list[int]:
        with open(f"/proc/self/fd/{self.log}", encoding="utf-8") as log:  # noqa: PTH123
            lines = [line.split() for line in log]
        return [int(words[2]) for words in lines if words[1] == "pid"]

    def _kill(self, others: list[int]) -> None:
        for pid in (*(pid for pid in others if pid != os.getpid()), os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(60)


class _Written:
    """A file that announces writes before they happen."""

    def __init__(self, file: Any, tell: Callable[[Callable[[], None]], None]) -> None:
        self._file, self._tell = file, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Written":
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._file.__exit__(*error)

    def write(self, data: Any) -> int:
        """Write, or write only half if the process is killed in this step."""

        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._tell(half)
        return int(self._file.write(data))


def _open_path(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115


def _tear(path: str) -> None:
    """Cut off the end of a file, as after a flush that was not completed."""
    if os.path.isfile(path):  # noqa: PTH113
        size = os.path.getsize(path)  # noqa: PTH202
        os.truncate(path, max(0, size - _TORN_BYTES))


def arm(plan: dict[str, Any], role: str) -> Fault:
    """Apply a plan (`root`, `log`, `role`, `at`, `act`) to this process."""
    # Shells let background jobs ignore SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fault = Fault(plan)
    fault.become(role)
    fault.arm()
    return fault


_command = " ".join(sys.orig_argv)
if PLAN in os.environ and "worker_process.py" not in _command:  # that one ends with its parent and writes nothing
    arm(json.loads(os.environ[PLAN]), "worker" if "pipo_core.train.worker" in _command else "pipo")
