"""One started sandbox, as the process outside sees it: it starts the driver, hands it runs, and reads what comes.

Nothing that comes from inside is believed to be more than bytes of the program that runs: outputs come through pipes
made for one run, and are bounded here. What is right is decided outside.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipo_core.errors import MachineError
from pipo_core.sandbox import seccomp
from pipo_core.sandbox.isolation import Isolation, as_settings
from pipo_core.sandbox.limits import Limits, Outcome, Reason

_START_SECONDS = 60.0
"""The driver starts in well under a second on an idle machine."""
_DRAIN_SECONDS = 5.0
"""The pipes of an ended program end with it."""
_PIECE = 1 << 16
_SEALS = ("F_SEAL_SEAL", "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_WRITE")


class SandboxFailure(MachineError):
    """The sandbox itself broke off: nothing is known of the program."""


class Running:
    """One started sandbox."""

    def __init__(self, isolation: Isolation, limits: Limits, prelude: str) -> None:
        self._limits = limits
        self._starter = threading.current_thread()
        self.driver: int | None = None
        self._handle: int | None = None
        with contextlib.ExitStack() as theirs:
            self._control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.callback(inner.close)
            filter_descriptor = _memory_file(seccomp.sandbox_filter())
            theirs.callback(os.close, filter_descriptor)
            info, info_write = os.pipe()
            theirs.callback(os.close, info)
            self._errors = os.memfd_create("errors")
            passed = (filter_descriptor, info_write, inner.fileno())
            try:
                self._process = subprocess.Popen(
                    isolation.command(limits, *passed),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=passed,
                    env={},
                    cwd="/",
                    process_group=0,  # only this process handles a Ctrl-C at the terminal
                )
            except OSError as error:
                self._control.close()
                os.close(self._errors)
                raise SandboxFailure(f"bwrap did not start: {error}") from error
            finally:
                os.close(info_write)
            inner.close()
            try:
                self._meet_driver(info)
                self._control.send(as_settings(limits, prelude, isolation.user()))
                if self._reply(_START_SECONDS).get("ready") != 1:
                    raise SandboxFailure("the sandbox's first process is not process 1")
            except BaseException as error:
                said = self._said()
                self.close()
                if isinstance(error, OSError | SandboxFailure):
                    raise SandboxFailure(f"the sandbox did not start: {said or error}") from error
                raise

    def _meet_driver(self, info: int) -> None:
        """Learn the driver's process id from bwrap, and hold the process."""
        text = b""
        deadline = time.monotonic() + _START_SECONDS
        while b"}" not in text:
            if not _readable(info, max(0.0, deadline - time.monotonic())):
                raise SandboxFailure("bwrap does not answer")
            piece = os.read(info, _PIECE)
            if not piece:
                raise SandboxFailure("bwrap ended")
            text += piece
        driver = int(json.loads(text)["child-pid"])
        self._handle = os.pidfd_open(driver)
        if _parent_of(driver) != self._process.pid:  # it has ended, and its number may be another process's
            os.close(self._handle)
            self._handle = None
            raise SandboxFailure("bwrap ended")
        self.driver = driver
        with contextlib.suppress(OSError):  # if memory runs out, the kernel ends programs first, and not pipo
            Path(f"/proc/{driver}/oom_score_adj").write_text("1000", encoding="ascii")

    def goes_on(self) -> bool:
        """Return whether the sandbox runs, and will not end by itself."""
        return self._process.poll() is None and self._starter.is_alive()

    def run(self, job: Mapping[str, object], inputs: Sequence[bytes]) -> tuple[Outcome, bool]:
        """Run a program; return how it ended, and whether the sandbox is as fresh as before."""
        began = time.monotonic()
        names = ["stdout", "stderr", *(["value"] if job["function"] is not None else [])]
        with contextlib.ExitStack() as open_descriptors:

            def kept(descriptor: int) -> int:
                open_descriptors.callback(os.close, descriptor)
                return descriptor

            # stdin and source, then the pipes' ends for writing, then files
            sent = [kept(_memory_file(data)) for data in inputs]
            reading: dict[int, str] = {}
            with contextlib.ExitStack() as their_ends:
                ends = []
                for name in ("stdout", "stderr", "value"):
                    ours, end = os.pipe()
                    their_ends.callback(os.close, end)
                    reading[kept(ours)] = name
                    ends.append(end)
                self._send(job, [*sent[:2], *ends, *sent[2:]])
            captured = {name: bytearray() for name in reading.values()}
            status, reason, clean = self._follow(reading, captured, began)
        if reason is None:
            reason = _reason(status, bytes(captured["stderr"][-4096:]))
        outcome = Outcome(
            stdout=bytes(captured["stdout"]),
            stderr=bytes(captured["stderr"]),
            value=bytes(captured["value"]) if "value" in names else None,
            status=status,
            reason=reason,
            seconds=time.monotonic() - began,
        )
        return outcome, clean

    def _send(self, job: Mapping[str, object], descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(job).encode()], descriptors)
        except OSError as error:
            raise SandboxFailure(f"the sandbox has ended: {self._said() or error}") from error

    def _follow(
        self, reading: dict[int, str], captured: Mapping[str, bytearray], began: float
    ) -> tuple[int, Reason | None, bool]:
        """Read what the program writes until it ends or oversteps a limit.

        Returns:
            Its status, the limit that it overstepped, and whether the sandbox can be used again.
        """
        deadline = began + self._limits.seconds
        control = self._control.fileno()
        poll = select.poll()
        for descriptor in (*reading, control):
            poll.register(descriptor, select.POLLIN)
        unread, reply = set(reading), None
        while unread or reply is None:
            left = deadline - time.monotonic()
            ready = [descriptor for descriptor, _ in poll.poll(max(0.0, left) * 1000)]
            # A report that is there came in time: it is this process that looks late.
            if not ready or (left <= 0 and control not in ready):
                return -signal.SIGKILL, "time", False
            for descriptor in ready:
                if descriptor == control:
                    reply = self._reply(0)
                    poll.unregister(control)
                    deadline = time.monotonic() + _DRAIN_SECONDS
                    continue
                piece = os.read(descriptor, _PIECE)
                kept = captured[reading[descriptor]]
                if not piece:
                    poll.unregister(descriptor)
                    unread.discard(descriptor)
                elif len(kept) + len(piece) > self._limits.output:
                    kept += piece[: self._limits.output - len(kept)]
                    return -signal.SIGKILL, "output", False
                else:
                    kept += piece
        return reply.get("status", 1), None, bool(reply.get("clean"))

    def _reply(self, seconds: float) -> dict[str, int]:
        if not _readable(self._control.fileno(), seconds):
            raise SandboxFailure("the sandbox does not answer")
        try:
            message = self._control.recv(_PIECE)
        except OSError:  # it ended before it had read what was sent
            message = b""
        if not message:
            raise SandboxFailure(f"the sandbox has ended: {self._said() or 'it was killed'}")
        try:
            reply = json.loads(message)
        except (ValueError, RecursionError) as error:
            raise SandboxFailure("the sandbox answers with something else than JSON") from error
        if not isinstance(reply, dict) or not all(isinstance(value, int) for value in reply.values()):
            raise SandboxFailure("the sandbox answers with something else than numbers")
        return reply

    def _said(self) -> str:
        """Return the last line that bwrap or the driver wrote to standard error."""
        text = os.pread(self._errors, 1 << 20, 0).decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else ""

    def close(self) -> None:
        """End everything inside and wait until it is gone."""
        # Process 1 becomes a zombie only when all others of its namespace are gone, and only then bwrap ends.
        with contextlib.suppress(ProcessLookupError):
            if self._handle is None:
                self._process.kill()
            else:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        if self._handle is not None:
            _readable(self._handle, _START_SECONDS)
            self._process.kill()
        self._process.wait()
        self._control.close()
        for descriptor in (self._errors, self._handle):
            if descriptor is not None:
                os.close(descriptor)


def _readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read; return whether there is."""
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _parent_of(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[1])
    except OSError:
        return None


def _memory_file(data: bytes) -> int:
    """Return the descriptor of a file in memory, at its beginning, that nobody can change."""
    descriptor = os.memfd_create("input", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sum(getattr(fcntl, name) for name in _SEALS))
    return descriptor


def _reason(status: int, errors: bytes) -> Reason:
    if status == 0:
        return "ok"
    if status == -signal.SIGXCPU:
        return "time"
    last = errors.strip().splitlines()[-1:] or [b""]
    if status > 0:
        return "memory" if last[0].startswith(b"MemoryError") else "error"
    return "signal"
