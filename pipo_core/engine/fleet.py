"""Which of several servers is asked next: the least busy one of those that work; those that fail rest."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from pipo_core.errors import MachineError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_POLL_S = 0.05


class PassingError(Exception):
    """A failure that another try may not meet; `refused` if the server answered with a status."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass
class _Server:
    """One server.

    Attributes:
        url: its address.
        running: requests that it is answering.
        failures: rests in a row; while there are any, it gets one request at a time.
        rests_until: when it may be asked again, in seconds of `time.monotonic`.
    """

    url: str
    running: int = 0
    failures: int = 0
    rests_until: float = 0.0


class Fleet:
    """Chooses a server for each try: the least busy one of those that work.

    Args:
        urls: the servers' addresses.
        patience_s: how long after a failure no server may answer before waiting is given up.
        failure: returns why no server will ever answer again, if that is known.
    """

    def __init__(
        self, urls: Sequence[str], patience_s: float, failure: Callable[[], MachineError | None] = lambda: None
    ) -> None:
        self._servers = [_Server(url) for url in urls]
        self._patience_s = patience_s
        self._failure = failure
        self._failing_since: float | None = None

    def start(self) -> None:
        """Begin to be patient."""
        self._failing_since = None

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[str]:
        """Wait for a server that works, and take it for one try.

        A failure that may pass makes it rest, twice as long each time; then one request tries it out.

        Raises:
            MachineError: if none has answered since a failure that is longer ago than the patience lasts, and none is
                answering now; or if none ever will.
        """
        chosen = await self._free_server()
        chosen.running += 1
        try:
            yield chosen.url
        except PassingError as error:
            self._rest(chosen, error)
            raise
        else:
            self._failing_since = None
            chosen.failures = 0
        finally:
            chosen.running -= 1

    async def _free_server(self) -> _Server:
        while True:
            now = time.monotonic()
            free = [one for one in self._servers if one.rests_until <= now and not (one.failures and one.running)]
            if free:
                return min(free, key=lambda one: one.running)
            lost = self._failure()
            if lost is not None:
                raise lost
            failing = self._failing_since is not None and now - self._failing_since > self._patience_s
            if failing and not any(one.running for one in self._servers):
                raise MachineError(f"no server has answered for {self._patience_s:.0f} s")
            await asyncio.sleep(_POLL_S)

    def _rest(self, server: _Server, error: PassingError) -> None:
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if server.rests_until > now:
            return  # requests that fail together are one failure
        pause = min(_FIRST_PAUSE_S * 2.0 ** min(server.failures, 30), _LONGEST_PAUSE_S)
        server.rests_until = now + pause * random.uniform(0.75, 1.25)  # noqa: S311 - several jobs do not come together
        if not server.failures:
            _LOG.warning("%s: it rests, and is tried again", error)
        server.failures += 1
