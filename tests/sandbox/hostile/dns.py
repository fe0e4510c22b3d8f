# Asks a name server, and sends a datagram anywhere.
# ruff: noqa
# mypy: ignore-errors

import socket

for attempt in (
    lambda: socket.getaddrinfo("example.com", 80),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"breach", ("8.8.8.8", 53)),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 1024)),
):
    try:
        attempt()
        print("BREACH")
    except OSError:
        pass
