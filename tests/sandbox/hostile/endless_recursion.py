# Recurses through C code until the stack is full.
# ruff: noqa
# mypy: ignore-errors

import sys

sys.setrecursionlimit(1 << 30)


class Deep:
    def __repr__(self):
        return repr(self)


repr(Deep())
