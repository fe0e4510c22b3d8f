"""Every request has an id, which clients can give, and a line in the log."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from pipo_core.serve.service import Service

LOG = logging.getLogger("pipo.serve")
"""The server's log: a line a request at INFO."""

_HEADER = "x-request-id"
_SANE_ID = re.compile(r"[\w.:/=+-]{1,128}", re.ASCII)
NO_STATUS = 499
"""The status in the log of a request whose client left before the answer (nginx's number)."""

_FORMAT = "%(asctime)s %(levelname)s %(message)s"

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def log_requests(level: str) -> None:
    """Write the server's log to standard error.

    Args:
        level: of what is written: debug, info, warning or error.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    LOG.handlers = [handler]
    LOG.setLevel(level.upper())
    LOG.propagate = False


@dataclass
class Trace:
    """A request on its way.

    Attributes:
        id: the client's, or one of our own.
        held: bytes of its body, which the server holds until it is answered.
        facts: further words for its line in the log.
        status: of the answer; 0 before it.
        left: whether the client left before a whole answer.
        began: when it arrived, in seconds of `time.monotonic`.
        at_end: called when the request has been answered, or its client has left.
    """

    id: str
    held: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    left: bool = False
    began: float = field(default_factory=time.monotonic)
    at_end: Callable[[], None] = lambda: None

    def line(self, method: str, path: str) -> str:
        """Return the request's line."""
        facts = "".join(f" {name}={value}" for name, value in self.facts.items())
        status = NO_STATUS if self.left else self.status or NO_STATUS
        return f"{method} {path} {status} {time.monotonic() - self.began:.3f}s id={self.id}{facts}"


def trace_of(request: Request) -> Trace:
    """Return the trace of a request."""
    trace: Trace = request.state.trace
    return trace


class Tracing:
    """ASGI middleware that opens each request's `Trace` and closes it after the answer.

    Args:
        app: the application.
        service: counts the bytes of bodies that are held.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = Trace(_id_of(scope["headers"]))
        scope.setdefault("state", {})["trace"] = trace

        async def send_traced(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER.encode(), trace.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        finally:
            trace.at_end()
            self._service.held_bytes -= trace.held
            level = logging.DEBUG if scope["path"] in ("/health", "/ready", "/metrics") else logging.INFO
            if LOG.isEnabledFor(level):
                # The path is the client's: percent-escapes keep control characters out of the log.
                LOG.log(level, trace.line(scope["method"], scope["raw_path"].decode("ascii", "replace")))


def _id_of(headers: list[tuple[bytes, bytes]]) -> str:
    given = next((value.decode("latin-1") for name, value in headers if name == _HEADER.encode()), "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
