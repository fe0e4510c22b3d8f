"""Runs a command that ends with the process that started it, however that one ends: by SIGKILL, too.

``python -m pipo_core.guard -- COMMAND …`` waits for the end of its standard input, a pipe that the kernel closes when
the starting process is gone. It then ends the command and everything that the command has started. If the guard itself
is killed, Linux ends the command.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

_GRACE_SECONDS = 10
"""From the polite signal to the one that cannot be caught."""
_SIGNAL_AT_PARENTS_END = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl``."""


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command that runs another one under guard; give it a pipe as its standard input."""
    return [sys.executable, "-m", "pipo_core.guard", "--", *command]


def _main() -> int:
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # one that comes now waits until it can be passed on
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def begin() -> None:
        if library is not None:
            library.prctl(_SIGNAL_AT_PARENTS_END, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=begin)
    for number in signals:
        signal.signal(number, lambda got, _: child.send_signal(got))
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # what the command has left behind
    return code if code >= 0 else 128 - code


def _end_with_input(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(_main())
