"""Tries a way to isolate with a program that attacks its surroundings."""

import json

from pipo_core.sandbox.box import Sandbox
from pipo_core.sandbox.isolation import ENVIRONMENT, Isolation, namespaces_of
from pipo_core.sandbox.limits import Limits
from pipo_core.sandbox.running import SandboxFailure

_LIMITS = Limits(seconds=20.0, memory=256 << 20, threads=8, output=1 << 20, work_bytes=1 << 20)

_PROGRAM = """
import json, os, socket, threading

def succeeds(attempt):
    try:
        attempt()
    except (OSError, MemoryError, RuntimeError):
        return False
    return True

def start_threads():
    threading.stack_size(1 << 16)
    stop = threading.Event()
    try:
        for _ in range(%(threads)d):
            threading.Thread(target=stop.wait, daemon=True).start()
    finally:
        stop.set()

def overfill():
    for name in "123":
        with open(name, "wb") as file:
            file.write(bytes(700_000))

print(json.dumps({
    "starts a process": succeeds(os.fork),
    "opens a socket": succeeds(socket.socket),
    "writes outside of its work directory": succeeds(lambda: open("/probe", "w")),
    "overfills its work directory": succeeds(overfill),
    "takes more memory than it may": succeeds(lambda: bytearray(%(memory)d)),
    "starts more threads than it may": succeeds(start_threads),
    "sees files of the machine": not set(os.listdir("/")) <= set(%(seen)r),
    "sees the environment": not set(os.environ) <= set(%(environment)r),
    "is the machine's root": os.getuid() == 0,
    "reads processes": os.path.exists("/proc/1"),
}))
"""


def weakness(isolation: Isolation) -> str | None:
    """Return what is wrong with a way to isolate, in a line; None if everything that was tried is kept apart."""
    try:
        found = breaches(isolation)
    except (SandboxFailure, OSError) as error:
        return str(error)
    return f"a program inside {found[0]}" if found else None


def breaches(isolation: Isolation) -> list[str]:
    """Return what a program inside can do and must not.

    Raises:
        SandboxFailure: if the sandbox does not start, or a harmless program fails in it.
    """
    view = isolation.command(_LIMITS, 0, 0, 0)
    source = _PROGRAM % {
        "threads": _LIMITS.threads + 1,
        "memory": _LIMITS.memory,
        "seen": sorted({word.split("/")[1] for word in view[1:] if word.startswith("/")}),
        "environment": [*ENVIRONMENT, "LC_CTYPE", "PWD"],
    }
    with Sandbox(_LIMITS, isolation=isolation) as sandbox:
        sandbox.run("")
        if sandbox.driver is None:
            raise SandboxFailure("a harmless program leaves something behind")
        shared = _shared_namespaces(sandbox.driver)
        outcome = sandbox.run(source)
    if outcome.reason != "ok":
        lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SandboxFailure(f"a harmless program ends with {outcome.reason}: {lines[-1] if lines else outcome.status}")
    found = json.loads(outcome.stdout)
    return [
        *(what for what, breached in found.items() if breached),
        *(f"shares the {kind} namespace" for kind in shared),
    ]


def _shared_namespaces(process: int) -> list[str]:
    ours, theirs = namespaces_of("self"), namespaces_of(process)
    return [kind for kind in ours if ours[kind] == theirs[kind]]
