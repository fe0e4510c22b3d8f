"""The first process inside a sandbox: it forks one process for each run of the untrusted program.

It is started by file path and imports nothing of pipo. It is process 1 of its process namespace, so nothing inside can
kill or stop it, and everything inside dies with it. Inputs come as files in memory and outputs leave through pipes,
both made for one run by the process outside; the driver never sees them. It never knows a right answer.

Over the socket that its argument names come, as JSON: the settings, once; then one job a message, with its descriptors.
It answers `ready`, and after each run how that ended.
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import io
import json
import os
import resource
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn

_python_open = open
_LONGEST_MESSAGE = 1 << 20
_MOST_DESCRIPTORS = 16
_VALUE = 3
"""The descriptor for the called function's value."""
_STACK = 120 << 20
"""Bytes of the first thread's stack; Linux leaves at least 128 MiB of addresses for it."""
_WORK = "/tmp"  # noqa: S108 - the sandbox's own
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 38, 22, 2


def main() -> None:
    """Answer jobs until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 only hears signals that it handles
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(control.recv(_LONGEST_MESSAGE))
    names: dict[str, Any] = {}
    builtins.open = io.open = _open  # before the prelude takes its names
    exec(settings["prelude"], names)  # noqa: S102 - the caller's own imports
    call = ctypes.CDLL(None, use_errno=True).prctl
    gc.freeze()
    control.send(json.dumps({"ready": os.getpid()}).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, _MOST_DESCRIPTORS)
        if not message:
            return
        job = json.loads(message)
        child = os.fork()
        if child == 0:
            _begin(job, descriptors, settings, names, call)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        _end_all_others()
        for name in job["files"]:
            with contextlib.suppress(OSError):
                os.unlink(f"{_WORK}/{name}")  # noqa: PTH108 - pathlib is not imported: it takes longer than a run
        clean = not settings["work"] or _is_empty(_WORK)
        ended = {"status": os.waitstatus_to_exitcode(status), "clean": clean}
        control.send(json.dumps(ended).encode())


def _open(file: Any, *given: Any, **named: Any) -> Any:
    """Open a file as Python does; `/dev/stdin` too, which is a link into `/proc` elsewhere, and there is none here."""
    return _python_open(0 if file == "/dev/stdin" else file, *given, **named)


def _is_empty(folder: str) -> bool:
    try:
        return not any(os.scandir(folder))
    except OSError:  # where the program has the driver's user, it may have forbidden to look
        return False


def _end_all_others() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _begin(
    job: dict[str, Any],
    descriptors: list[int],
    settings: dict[str, Any],
    names: dict[str, Any],
    call: Callable[..., int],
) -> NoReturn:
    """Become the untrusted program. Its descriptors: source, input, output, errors, value, then files by name."""
    status = 1
    try:
        source, *standard = descriptors[:5]
        with open(source, "rb", closefd=False) as file:
            text = file.read().decode()
        os.chdir(_WORK if settings["work"] else "/")
        if settings["user"] is not None:
            os.setgroups([])
            os.setresgid(*[settings["user"]] * 3)
            os.setresuid(*[settings["user"]] * 3)
        for name, descriptor in zip(job["files"], descriptors[5:], strict=True):
            with _python_open(name, "wb") as copy, _python_open(descriptor, "rb", closefd=False) as given:
                copy.write(given.read())
        high = [os.dup(descriptor) for descriptor in standard]
        for number, descriptor in enumerate(high):
            os.dup2(descriptor, number)
        os.closerange(_VALUE + 1, 1 << 16)
        _limit(settings)
        _filter(bytes.fromhex(settings["filter"]), call)
        _open_standard_files()
        sys.argv = ["program.py", *job["arguments"]]
        status = _run(text, job["function"], names)
    except BaseException:  # noqa: BLE001 - whatever it was, the program did not run
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def _limit(settings: dict[str, Any]) -> None:
    bounds = {
        resource.RLIMIT_AS: settings["memory"],
        resource.RLIMIT_NPROC: settings["threads"],
        resource.RLIMIT_NOFILE: settings["open_files"],
        resource.RLIMIT_FSIZE: settings["work"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, bound in bounds.items():
        _lower(kind, bound, bound)
    # The soft limit's signal can be ignored; the hard one, a second later, cannot.
    _lower(resource.RLIMIT_CPU, settings["cpu_seconds"], settings["cpu_seconds"] + 1)
    _lower(resource.RLIMIT_STACK, _STACK, resource.RLIM_INFINITY)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, or leave the one that pipo itself has if that is lower; -1 is none."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(kind, (soft, hard))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _filter(code: bytes, call: Callable[..., int]) -> None:
    program = _Filter(len(code) // 8, code)
    for arguments in (
        (_PR_SET_DUMPABLE, 0, 0, 0, 0),  # a crash would start the machine's handler of core dumps, outside
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if call(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel does not restrict the process")


def _open_standard_files() -> None:
    for number, name, errors in ((0, "stdin", "surrogateescape"), (1, "stdout", "strict"), (2, "stderr", "replace")):
        raw = io.FileIO(number, "wb" if number else "rb", closefd=False)
        buffered = io.BufferedWriter(raw) if number else io.BufferedReader(raw)
        file = io.TextIOWrapper(buffered, "utf-8", errors)
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


def _run(text: str, function: str | None, names: dict[str, Any]) -> int:
    """Run the program, and call its function if one is named; return the exit status."""
    module = types.ModuleType("__main__" if function is None else "solution")
    module.__dict__.update(names, __name__=module.__name__)
    for name in {"argv", "stdin", "stdout", "stderr"} & names.keys():  # `from sys import *` took those of process 1
        module.__dict__[name] = getattr(sys, name)
    sys.modules[module.__name__] = module
    output = sys.stdout
    status = 0
    try:
        exec(compile(text, "program.py", "exec"), module.__dict__)  # noqa: S102 - what this process is for
        if function is not None:
            value = _called(module, function)
            # Its own tuples and numpy's numbers are numbers and lists to whoever compares.
            with open(_VALUE, "wb", closefd=False) as file:
                file.write(json.dumps(value, default=lambda other: other.tolist()).encode())
    except SystemExit as end:
        status = _exit_status(end.code)
    except BaseException:  # noqa: BLE001 - every kind ends a program
        sys.excepthook(*sys.exc_info())
        status = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - wait for threads as the interpreter does
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001
    for file_ in (sys.stdout, output):
        try:
            file_.flush()
        except Exception:  # noqa: BLE001 - it may be closed, or anything
            status = status or (1 if file_ is output and not output.closed else 0)
    return status


def _called(module: types.ModuleType, function: str) -> object:
    """Return the value of the function for the arguments on standard input, one JSON value a line."""
    arguments = [json.loads(line) for line in sys.stdin.read().strip().split("\n") if line.strip()]
    solution = module.__dict__.get("Solution")
    owner = module if solution is None else solution()
    return getattr(owner, function)(*arguments)


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1


if __name__ == "__main__":
    main()
