# Reads and writes through symbolic links that lead outside.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os

for number, place in enumerate(
    [*target["files"], "/etc/passwd", "/driver.py", "/proc/1/root", "../../../../etc/passwd"]
):
    link = f"link{number}"
    try:
        os.symlink(place, link)
        if place != "/driver.py" and open(link).read():
            print("BREACH read", place)
    except OSError:
        pass
    try:
        with open(link, "a") as file:
            file.write("breach")
            file.flush()
        if os.path.realpath(link) == place:
            print("BREACH wrote", place)
    except OSError:
        pass
