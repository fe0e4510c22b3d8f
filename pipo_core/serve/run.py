"""Runs the server: opens its socket and stops it in order."""

import errno
import ipaddress
import socket
from collections.abc import Callable

from pipo_core.errors import MachineError, UsageError
from pipo_core.serve.connections import BoundedServer
from pipo_core.serve.openai_api import create_app
from pipo_core.serve.service import Service

_BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted: many clients may come at once."""


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def local_names(host: str) -> frozenset[str]:
    """Return the names by which this machine calls a server that listens on ``host``, a loopback address."""
    return frozenset({host.lower(), "localhost", "127.0.0.1", "::1"})


def url(listening: socket.socket) -> str:
    """Return the address of the interface that a listening socket has, an IPv6 address in brackets."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def require_key(host: str, *, has_key: bool) -> None:
    """Refuse an address that other machines can reach without an API key.

    Raises:
        UsageError: if there is none.
    """
    if not has_key and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached by others, and there is no API key",
            hint="give --api-key-file FILE, or leave out --host",
        )


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
    require_key(host, has_key=has_key)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MachineError(f"port {port} of {host} is in use", hint=f"pipo serve --port {port + 1}") from error
        raise MachineError(
            f"{host}:{port}: {error.strerror or error}", hint="choose another --host or --port"
        ) from error


def serve(service: Service, listening: socket.socket, *, drain_seconds: int, ready: Callable[[], None]) -> int:
    """Answer requests until SIGINT or SIGTERM; then accept no more and let the accepted ones finish.

    Args:
        service: the model that is served.
        listening: the socket to listen on.
        drain_seconds: how long accepted requests may take to finish after the signal.
        ready: called once, just before the server starts to answer.

    Returns:
        How many requests were cut off because they took longer.
    """
    server = BoundedServer(create_app(service), service.live, listening, drain_seconds=drain_seconds)
    ready()
    try:
        server.run()
        return server.cut_off + service.live.cancel_all()
    finally:
        service.live.close()
