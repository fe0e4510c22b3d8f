# Leaves files in places that the next test might share.
# ruff: noqa
# mypy: ignore-errors

import os

for place in ("/dev/shm", "/dev", "/run", "/var/tmp", "/run/user/0", "/", "/packages", "/root"):
    try:
        with open(os.path.join(place, "left"), "w") as file:
            file.write("state")
        print("BREACH", place)
    except OSError:
        pass
for place in ("/tmp", "/"):
    try:
        os.setxattr(place, "user.state", b"state")
        print("BREACH attribute", place)
    except OSError:
        pass
