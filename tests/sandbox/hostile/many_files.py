# Makes files and nested folders until the disk has no room for names.
# ruff: noqa
# mypy: ignore-errors

import os

made = 0
try:
    while True:
        with open(f"{made}", "w") as file:
            file.write("x" * 5000)
        os.mkdir(f"folder{made}")
        os.chdir(f"folder{made}")
        made += 1
        if made > 200_000:
            print("BREACH", made)
            break
except OSError:
    pass
