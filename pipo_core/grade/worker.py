"""Graders that work in a separate process with a deadline, because hostile text can take unlimited time or memory."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pipo_core.errors import MachineError

START_SECONDS = 120.0
"""The worker may take this long to import its library (one to six seconds on an idle machine)."""

KILL_GRACE = 1.0
"""Seconds after its own deadline at which the worker is killed from outside, since a stopped process gets no alarm."""


class _Worker:
    """One running `worker_process.py`."""

    def __init__(self, script: str, failure: MachineError) -> None:
        """Start a process that grades by `script`, a file beside this one; raise `failure` if it does not start."""
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            # -P: this folder contains a math.py, which must not shadow the standard library's.
            [sys.executable, "-P", str(here / "worker_process.py"), str(here / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            process_group=0,  # only the parent handles a Ctrl-C at the terminal
        )
        if self._reply_within(START_SECONDS) != "ready":
            self.close()
            raise failure

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        """Return the worker's standard input and output."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        return self._process.stdin, self._process.stdout

    def _reply_within(self, seconds: float, line: str | None = None) -> object:
        """Write `line`, if any, and return the next reply; None if the worker dies or is killed after `seconds`."""
        requests, replies = self._pipes()
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            if line is not None:
                requests.write(line)
                requests.flush()
            reply = replies.readline()
        except OSError:  # nobody reads the pipe any more
            return None
        finally:
            timer.cancel()
            timer.join()  # a kill under way must not hit the next job
        return json.loads(reply) if reply.endswith("\n") else None

    def ask(self, job: dict[str, Any], seconds: float) -> object:
        """Return the reply to a job; None if the worker died or exceeded `seconds`."""
        line = json.dumps({**job, "seconds": seconds})
        return self._reply_within(seconds + KILL_GRACE, line + "\n")

    def close(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        for pipe in self._pipes():
            try:
                pipe.close()
            except OSError:  # closing flushes bytes that a dead worker can no longer read
                continue
        self._process.wait()


class WorkerGrader:
    """A grader that can own a process; a context manager, because the process must end.

    The process starts with the first job and ends with the context. Calls from several threads run one after another.
    A worker that exceeds the deadline or dies is replaced. No text makes the grader raise or hang.
    """

    def __init__(self, script: str, failure: MachineError, deadline: float) -> None:
        """Set what grades.

        Args:
            script: the file beside this one that the process runs.
            failure: the error to raise if the process does not start.
            deadline: seconds for each job.
        """
        self.deadline = deadline
        self._script, self._failure = script, failure
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the grader; its process starts later."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker if one runs."""
        self.close()

    def close(self) -> None:
        """End the worker if one runs; the grader can be used again."""
        with self._lock:
            self._stop_worker()

    def _ask_worker(self, job: dict[str, Any]) -> object:
        """Return the worker's reply to a job; None if it gave none, and then it is ended."""
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self._script, self._failure)
            reply = None
            try:
                reply = self._worker.ask(job, self.deadline)
            finally:  # also when interrupted: the next job must not receive this reply
                if reply is None:
                    self._stop_worker()
        return reply

    def _stop_worker(self) -> None:
        """End the worker if one runs; the lock is held."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
