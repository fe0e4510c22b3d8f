# Connects to a port of this machine, and listens on one.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import socket

for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        with socket.create_connection((address, target["port"]), timeout=0.2) as connection:
            connection.sendall(b"breach")
        print("BREACH", address)
    except OSError:
        pass
for make in (lambda: socket.create_server(("0.0.0.0", 0)), lambda: socket.socket(socket.AF_UNIX).bind("\0breach")):
    try:
        make()
        print("BREACH listens")
    except OSError:
        pass
