"""Runs the server: opens its socket and stops it in order."""

import errno
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from pipo_core.errors import MachineError, UsageError
from pipo_core.serve.openai_api import Service, create_app


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, has_key: bool) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: a name or an address of this machine.
        port: 0 for any free one.
        has_key: whether clients must send an API key.

    Raises:
        UsageError: if other machines can reach the address and there is no API key.
        MachineError: if the port is taken, or the address is not this machine's.
    """
    if not has_key and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached by others, and there is no API key",
            hint="give --api-key-file FILE, or leave out --host",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MachineError(f"port {port} of {host} is in use", hint=f"pipo serve --port {port + 1}") from error
        raise MachineError(
            f"{host}:{port}: {error.strerror or error}", hint="choose another --host or --port"
        ) from error


class _Server(uvicorn.Server):
    """Exits with code 0 after a signal: uvicorn itself would raise the signal again after its shutdown."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(service: Service, listening: socket.socket, *, drain_seconds: int, ready: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; then accept no more and let the accepted ones finish.

    Args:
        service: the model that is served.
        listening: the socket to listen on.
        drain_seconds: how long accepted requests may take to finish after the signal.
        ready: called once, just before the server starts to answer.
    """
    app = create_app(service)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=drain_seconds, lifespan="off"
    )
    ready()
    try:
        _Server(config).run(sockets=[listening])
    finally:
        service.live.drain(timeout=0)
        service.live.close()
