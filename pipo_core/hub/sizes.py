"""Numbers of bytes in words."""


def size_text(count: float) -> str:
    """Return `9.32 GB`, `120 MB`, `3.1 kB` or `17 bytes`: decimal units, three digits."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.{2 if count < 10 * scale else 1 if count < 100 * scale else 0}f} {unit}"
    return f"{count:.0f} bytes"
