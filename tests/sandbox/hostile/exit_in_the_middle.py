# Ends at once with status 0, before it has written what it should.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import os

print(target["port"])
os._exit(0)
