"""Reads the hidden tests of LiveCodeBench, which come packed: base64 of zlib of a pickle of a JSON text.

A pickle is a program that may do anything when it is loaded. So none is loaded: its instructions are listed, and only
those that a single text consists of are allowed.
"""

import base64
import binascii
import functools
import io
import pickletools
import zlib

MAX_BYTES = 1 << 29
"""Unpacked. LiveCodeBench's largest problems have some 100 MB of tests."""

_TEXT = {"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"}
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


MAX_TESTS = 10_000
"""Of one problem; LiveCodeBench's have some dozens."""


@functools.lru_cache(maxsize=4)
def unpack_tests(packed: str) -> str:
    """Return the JSON text of packed tests; a text that is JSON already is returned as it is.

    Args:
        packed: the column `private_test_cases`, packed or, as in some copies of the data set, plain.

    Raises:
        ValueError: if it is neither, or unpacks to something else than one text or to more than `MAX_BYTES`.
    """
    if packed.lstrip().startswith("["):
        return packed
    try:
        compressed = base64.b64decode(packed.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"packed tests are neither JSON nor base64: {error}") from None
    unpacker = zlib.decompressobj()
    try:
        pickled = unpacker.decompress(compressed, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"packed tests are no zlib data: {error}") from None
    if unpacker.unconsumed_tail:
        raise ValueError(f"packed tests are more than {MAX_BYTES >> 20} MiB when unpacked")
    if not unpacker.eof:
        raise ValueError("packed tests are cut off")
    return _pickled_text(pickled)


def is_packed(packed: str) -> bool:
    """Return whether a text begins as packed tests do; nothing but its beginning is unpacked."""
    try:
        return bool(zlib.decompressobj().decompress(base64.b64decode(packed.strip()[:400], validate=True), 16))
    except (binascii.Error, ValueError, zlib.error):
        return False


def _pickled_text(pickled: bytes) -> str:
    """Return the one text that a pickle holds, without loading it."""
    texts: list[str] = []
    try:
        for instruction, value, _ in pickletools.genops(io.BytesIO(pickled)):
            if instruction.name in _TEXT and not texts and isinstance(value, str):
                texts.append(value)
            elif instruction.name not in _HARMLESS:
                raise ValueError(f"packed tests hold something else than a text (pickle's {instruction.name})")
    except (ValueError, UnicodeError) as error:
        raise ValueError(f"packed tests are no pickle of a text: {error}") from None
    if not texts:
        raise ValueError("packed tests hold no text")
    if texts[0].count('"input"') > MAX_TESTS:  # before they become millions of objects
        raise ValueError(f"packed tests are more than {MAX_TESTS:,}")
    return texts[0]
