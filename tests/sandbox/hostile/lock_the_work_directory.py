# Forbids everybody to look into the work directory, so that what it left there is not found.
# ruff: noqa
# mypy: ignore-errors

import os

with open("left", "w") as file:
    file.write("state")
try:
    os.chmod("/tmp", 0)
except OSError:
    pass
