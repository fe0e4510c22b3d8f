"""How a training is asked to stop: by a signal, by a file, or because its supervisor is gone."""

import os
import signal
import threading
from pathlib import Path


class StoppedEarly(Exception):
    """The training was asked to stop before its first step, so there is nothing to save."""


class StopRequest:
    """Whether the training is asked to stop."""

    def __init__(self, file: Path) -> None:
        """Watch for a file.

        Args:
            file: its presence is a request.
        """
        self._file = file
        self._asked = False
        self._training = False

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests; a second signal ends the process at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def end_with(self, pipe: int) -> None:
        """Take the end of a pipe as a request.

        Args:
            pipe: a file descriptor. The supervisor alone holds the other end, so it closes however the supervisor dies.
        """
        threading.Thread(target=self._wait_for_end, args=(pipe,), daemon=True).start()

    def ask(self) -> None:
        """Ask for the end after the current step."""
        self._asked = True

    def training_begins(self) -> None:
        """Note that from now on there is something to save.

        Raises:
            StoppedEarly: if a request came before.
        """
        if self.requested():
            raise StoppedEarly
        self._training = True

    def requested(self) -> bool:
        """Return whether this process knows of a request."""
        return self._asked or self._file.exists()

    def _wait_for_end(self, pipe: int) -> None:
        while os.read(pipe, 1 << 10):
            pass
        self.ask()
        if not self._training:
            os.kill(os.getpid(), signal.SIGTERM)  # interrupts the main thread, which has nothing to save

    def _on_signal(self, *_: object) -> None:
        again, self._asked = self.requested(), True
        if not self._training:
            raise StoppedEarly
        if again:
            raise KeyboardInterrupt
