# Writes bytes that are no text.
# ruff: noqa
# mypy: ignore-errors

import os

os.write(1, b"\xff\xfe\x00\xc3\x28\xed\xa0\x80")
os.write(2, b"\xff")
