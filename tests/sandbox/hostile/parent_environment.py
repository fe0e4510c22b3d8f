# Looks for the parent's environment.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os

for place in (
    "/proc/self/environ",
    "/proc/1/environ",
    f"/proc/{os.getppid()}/environ",
    f"/proc/{target['pid']}/environ",
):
    try:
        if target["secret"].encode() in open(place, "rb").read():
            print("BREACH", place)
    except OSError:
        pass
if target["secret"] in repr(dict(os.environ)):
    print("BREACH environment")
