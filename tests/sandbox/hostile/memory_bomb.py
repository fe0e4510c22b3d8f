# Doubles a list until the machine swaps.
# ruff: noqa
# mypy: ignore-errors

held = [bytearray(1 << 20)]
while True:
    held += [bytearray(len(one)) for one in held]
    if len(held) > 1 << 14:
        print("BREACH", len(held), flush=True)
