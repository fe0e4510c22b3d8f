"""Running the server: where it listens, and how it stops."""

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
    """Whether only this machine can reach what listens at ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, has_key: bool) -> socket.socket:
    """Return a socket that listens there; port 0 takes a free one.

    Raises:
        UsageError: for an address that others can reach, without an API key.
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
    """Ends with code 0 when it is asked to end: uvicorn would raise the signal again behind its own end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(service: Service, listening: socket.socket, *, drain_seconds: int, ready: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; then take no more, and end those accepted.

    Args:
        service: what is served.
        listening: where.
        drain_seconds: how long accepted requests may take to end.
        ready: called once when the server is about to answer.
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
