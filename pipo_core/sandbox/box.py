"""Runs programs, each from a fresh start, in sandboxes that are started when they are needed."""

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from pipo_core.sandbox.isolation import Isolation, check_sandbox
from pipo_core.sandbox.limits import Limits, Outcome
from pipo_core.sandbox.running import Running, SandboxFailure

_MOST_FILES = 8


class Sandbox:
    """Runs programs of one origin, one after another, each from a fresh start; a context manager.

    The sandbox starts with its first run. After a run that was killed, or that left a file, the next one starts
    another. Calls from several threads run one after another: give each thread a sandbox of its own. If the thread
    that made the first run ends, Linux ends the sandbox, and the next run starts another.
    """

    def __init__(self, limits: Limits | None = None, *, prelude: str = "", isolation: Isolation | None = None) -> None:
        """Keep the settings.

        Args:
            limits: of each run.
            prelude: trusted source that is run once; each program begins with its names and imported modules.
            isolation: how to isolate; by default the way that works on this machine.
        """
        self.limits = limits or Limits()
        self._prelude = prelude
        self._isolation = isolation
        self._running: Running | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the sandbox; it starts with the first run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything inside."""
        self.close()

    def close(self) -> None:
        """End everything inside; the sandbox can be used again."""
        with self._lock:
            self._stop()

    def run(
        self,
        source: str,
        stdin: str | bytes = b"",
        *,
        function: str | None = None,
        files: Mapping[str, bytes] | None = None,
        arguments: Sequence[str] = (),
    ) -> Outcome:
        """Run a Python program and return how it ended; nothing of it is alive then.

        Args:
            source: the program.
            stdin: its standard input; of a function, the arguments, one JSON value a line.
            function: call this one, of the program's class `Solution` if it has one, and return its value.
            files: written to the work directory before the program starts, by plain names, and removed after it.
            arguments: the program's `sys.argv[1:]`.

        Raises:
            MachineError: if this machine cannot isolate programs.
            SandboxFailure: if the sandbox itself broke off.
            ValueError: if there are files but no work directory, or more than 8, or one that has no plain name.
        """
        files = files or {}
        if files and not self.limits.work_bytes:
            raise ValueError("files need a work directory: set work_bytes")
        if len(files) > _MOST_FILES or any("/" in name or name in ("", ".", "..") for name in files):
            raise ValueError(f"at most {_MOST_FILES} files with plain names, not {list(files)}")
        inputs = [_as_bytes(source), _as_bytes(stdin)]
        job = {"function": function, "files": list(files), "arguments": list(arguments)}
        with self._lock:
            if self._running is not None and not self._running.goes_on():
                self._stop()
            isolation = self._isolation or check_sandbox()
            reusable = False
            try:
                if self._running is None:
                    self._running = Running(isolation, self.limits, self._prelude)
                outcome, reusable = self._running.run(job, [*inputs, *files.values()])
            except OSError as error:  # no descriptors or no memory left, say
                raise SandboxFailure(f"the sandbox broke off: {error}") from error
            finally:
                if not reusable:
                    self._stop()
        return outcome

    @property
    def driver(self) -> int | None:
        """The process id, outside, of the first process inside; None if the sandbox is not running."""
        return self._running.driver if self._running else None

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text
