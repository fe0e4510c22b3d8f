# Reads files of the machine: passwords, homes, the project, the place that the test names.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os
import sys

places = [
    "/etc/shadow",
    "/etc/passwd",
    "/etc/hostname",
    os.path.expanduser("~root/.bashrc"),
    "/home",
    "/work",
    "/proc/cpuinfo",
    "/sys/kernel",
]
places += ["/var/log", "/usr/bin/env", *target["files"], *(os.path.dirname(name) for name in target["files"])]
for place in places:
    try:
        if os.path.isdir(place):
            found = os.listdir(place)
        else:
            found = open(place, "rb").read()
    except OSError:
        continue
    if found and place not in ("/", "/tmp"):
        print("BREACH", place, found[:3])
for folder in os.listdir("/"):
    if not folder.startswith(("usr", "lib")):
        for place, _, names in os.walk(f"/{folder}"):
            if "/lib/python3" not in place and not place.startswith("/packages/numpy"):
                for name in names:
                    if name != "ld.so.cache" and place not in ("/dev", "/tmp") and "python3" not in name:
                        if not place.endswith(("/lib", "/pkgconfig")):
                            print("BREACH", place, name)
for place in (f"{sys.base_prefix}/lib/python3.{sys.version_info[1]}/site-packages", "/usr/lib/python3/dist-packages"):
    if os.path.exists(place) and os.listdir(place):
        print("BREACH", place)
