# Looks for expected outputs in frames, in all objects of the interpreter, and in its memory's strings.
# ruff: noqa
# mypy: ignore-errors

import json

target = json.loads(input())

import gc
import inspect
import sys

found = []
frame = sys._getframe()
while frame:
    found += [repr(value) for value in (*frame.f_locals.values(), *frame.f_globals.values())]
    frame = frame.f_back
found += [repr(inspect.stack())]
gc.unfreeze()
for thing in gc.get_objects():
    try:
        found.append(repr(thing))
        found += [repr(other) for other in gc.get_referents(thing) if isinstance(other, (str, bytes))]
    except Exception:
        pass
text = "\n".join(found)
mark = target["mark"]
start = text.find(mark[::-1])
print("BREACH" if start >= 0 else "nothing", text[start : start + 40] if start >= 0 else "")
