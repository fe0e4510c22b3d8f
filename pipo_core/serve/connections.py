"""Accepts connections within the process's file descriptors, so that no client can keep the others out.

A connection is *busy* while a request of it is being answered. Another one, which is idle or has sent only part of a
request's headers, is closed after `_HEADER_SECONDS`, and earlier if its descriptor is needed: the oldest first. When
all connections are busy, further clients get status 503 at once. A client that does not read its answer is given up
after `_STUCK_SECONDS`.

A client may close its sending half behind its request, as scripts do, and still wait for the answer. One that has left
looks the same until something is written to it: then its machine answers with a reset. So a busy connection whose
sending half is closed gets an interim response (100), which clients of HTTP/1.1 read over, and is watched for resets.
"""

import asyncio
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipo_core.engine.live import LiveEngine

_HEADER_SECONDS = 30.0
_STUCK_SECONDS = 120.0
_OTHER_DESCRIPTORS = 48
"""Descriptors that the rest of the process needs beside those that it had open when the server started."""
_MOST_CONNECTIONS = 16_384
_CANCELLING_SECONDS = 10
"""How long answers that were cut off may take to tell their clients."""
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBE_SECONDS = 0.05
"""How long after the probe a reset from this machine or a near one has arrived; later ones are seen by the sweep."""
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Connection(H11Protocol):
    """A connection that knows since when it has waited for its client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle_since = time.monotonic()
        self.stuck_since: float | None = None
        self.half_closed = False

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        """Note the time at which the client's turn begins."""
        self.idle_since = time.monotonic()
        super().on_response_complete()
        if self.half_closed and not self.busy:  # super() may have begun the answer to a pipelined request
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's returns nothing, which closes the connection
        """Note that the client sends no more; return whether it may still wait for an answer."""
        if not self.busy or self.conn.their_state is h11.SEND_BODY:  # the rest of a body will never come
            return False
        self.half_closed = True
        self.probe()
        self.loop.call_later(_PROBE_SECONDS, self.close_if_reset)
        return True

    def probe(self) -> None:
        """Write something to a client that may have left, if the protocol has room for it."""
        if self.busy and not self.cycle.response_started and self.scope["http_version"] == "1.1":
            self.transport.write(_PROBE)

    def close_if_reset(self) -> None:
        """Close the connection if the client's machine has answered a write with a reset."""
        accepted = self.transport.get_extra_info("socket")
        if not self.transport.is_closing() and accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()

    def is_overdue(self, now: float) -> bool:
        """Return whether the client has had its time: to send headers, or to read."""
        if not self.busy:
            return now - self.idle_since > _HEADER_SECONDS
        if not self.flow.write_paused:
            self.stuck_since = None
            return False
        self.stuck_since = now if self.stuck_since is None else self.stuck_since
        return now - self.stuck_since > _STUCK_SECONDS


class BoundedServer(uvicorn.Server):
    """Serves an application on a listening socket, and ends in order after SIGINT or SIGTERM.

    Args:
        app: the application.
        live: the engine that answers; what it has not finished when the drain ends is cancelled.
        listening: the socket.
        drain_seconds: how long accepted requests may take after the signal.

    Attributes:
        cut_off: requests that were cancelled because the drain had ended.
    """

    def __init__(self, app: Any, live: LiveEngine, listening: socket.socket, *, drain_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=drain_seconds + _CANCELLING_SECONDS,
            )
        )
        self.cut_off = 0
        self._live = live
        self._listening = listening
        self._drain_seconds = drain_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._limit = connection_limit()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections: `sockets` is uvicorn's, and empty as the server has its own."""
        await super().startup(sockets or [])
        self._listening.setblocking(False)
        self._tasks = [asyncio.create_task(self._accept()), asyncio.create_task(self._sweep())]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections and let the requests finish; cancel them when the drain ends."""
        self._tasks[0].cancel()
        self._listening.close()
        expiry = asyncio.get_running_loop().call_later(self._drain_seconds, self._cut_off)
        await super().shutdown(sockets)
        expiry.cancel()
        self._tasks[1].cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals without raising them again after the shutdown, as uvicorn does: the exit code is 0 then."""
        try:
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # signals reach the main thread only, and this is another
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _cut_off(self) -> None:
        self.cut_off = self._live.cancel_all()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except OSError:  # the client has left, or the whole machine is short of descriptors
                self._make_room()
                await asyncio.sleep(0.02)
                continue
            if len(self.server_state.connections) >= self._limit and not self._make_room():
                with suppress(OSError):
                    accepted.send(_BUSY)
                accepted.close()
                continue
            with suppress(OSError):  # the client has left
                # Without it, a small answer waits for the client's delayed acknowledgement of the one before.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.connect_accepted_socket(self._connection, accepted)

    def _connection(self) -> _Connection:
        return _Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        waiting = [connection for connection in self._connections() if not connection.busy]
        if not waiting:
            return False
        min(waiting, key=lambda connection: connection.idle_since).transport.abort()
        return True

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for connection in self._connections():
                if connection.is_overdue(now):
                    connection.transport.abort()
                elif connection.half_closed:
                    connection.close_if_reset()
                    connection.probe()

    def _connections(self) -> list[_Connection]:
        return [
            connection
            for connection in self.server_state.connections
            if isinstance(connection, _Connection) and not connection.transport.is_closing()
        ]


def connection_limit() -> int:
    """Raise the process's limit of file descriptors as far as it goes; return how many connections fit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + 2 * _OTHER_DESCRIPTORS
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    room = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
    return max(room - _OTHER_DESCRIPTORS - _open_descriptors(), 1)


def _open_descriptors() -> int:
    """Return how many descriptors are open: the lowest free one tells, as descriptors are given out in order."""
    with socket.socket() as probe:
        return probe.fileno()
