# Makes links to files that it may not write, and renames and removes those.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os
import sys

for place in ("/driver.py", os.__file__, "/dev/null", sys.executable, *target["files"]):
    for attempt in (
        lambda: os.link(place, "linked"),
        lambda: os.rename(place, "renamed"),
        lambda: os.remove(place),
        lambda: os.chmod(place, 0o777) if place != "/dev/null" else os.remove(place),
        lambda: open(place, "r+b").write(b"breach") if place != "/dev/null" else os.remove(place),
        lambda: os.mkdir("/new"),
    ):
        try:
            attempt()
            print("BREACH", place)
        except OSError:
            pass
