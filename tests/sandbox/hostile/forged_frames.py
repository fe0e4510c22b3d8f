# Writes what a driver might report to every descriptor that is open.
# ruff: noqa
# mypy: ignore-errors

import json
import os
import socket

frames = [
    json.dumps({"status": 0, "clean": True, "ready": 1}).encode(),
    b'{"status": 0, "clean": true}\n',
    b"true\n",
    b"1\n",
]
for number in range(256):
    for frame in frames:
        try:
            os.write(number, frame)
        except OSError:
            pass
    try:
        socket.socket(fileno=os.dup(number)).send(frames[0])
        print("BREACH socket", number)
    except OSError:
        pass
