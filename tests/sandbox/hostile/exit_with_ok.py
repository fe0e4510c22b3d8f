# Ends through sys.exit with status 0, and claims to be right on every channel.
# ruff: noqa
# mypy: ignore-errors

import sys

print("ok")
print("ok", file=sys.stderr)
sys.exit(0)
