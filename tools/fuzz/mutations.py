"""Single mutations of recipes, JSON files and safetensors files, drawn from a `Random`: hypothesis's or a plain one."""

import copy
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

HUGE = 10**9
NUMBERS = (
    *(0, 1, -1, 2, 7, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 10**99, 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "no", "true", "null", "~", "1e5", "0x1F", "-1", "nan", "a/b", "stage:", "stage:x", "../../x", "/", "."),
    *(
        "..",
        "/dev/zero",
        "~root/x",
        "x" * 300,
        "x/" * 3000,
        "x" * 20_000,
        "<|im_end|>",
        "a\0b",
        "a\nb",
        "\ttab",
        "\ud800",
    ),
    *(
        "\u202ereversed",
        "\x1b[31mred",
        "é" * 200,
        "𝔘𝔫𝔦",
        "\ufeff",
        "\u2028",
        "%s%n{0}{{QUERY}}",
        "$(id)",
        "`id`",
        "'",
        '"',
    ),
    *(
        "!!python/object:os.system",
        "*alias",
        "&anchor",
        "@at",
        "tiny-student",
        "tiny-studnet",
        "aime25",
        "qwen3.5-4b@x",
    ),
)
SNIPPETS = (
    *(
        "\t",
        "\r\n",
        "\ufeff",
        "---\n",
        "...\n",
        "--- a\n---\n",
        "%YAML 1.1\n---\n",
        "<<: {a: 1}\n",
        "<<: *a\n",
        "&a ",
        "*a",
    ),
    *(
        "!!python/object/apply:os.system ['true']",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "!!timestamp 2001-12-14",
        "!x ",
        "!!str ",
    ),
    *(
        "? [1, 2]\n: 3\n",
        "? |\n  long\n: 1\n",
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "|",
        ">",
        "#",
        "'",
        '"',
        "\\",
        "\0",
        "\x7f",
        "\x85",
    ),
    *(
        "a: &a [*a]\n",
        "x: .nan\n",
        "x: -.inf\n",
        "1: 2\n",
        "null: 1\n",
        "true: 1\n",
        "? : \n",
        "\ud800",
        "[" * 60,
        "{a: " * 60,
    ),
    *(
        '"\\ud800": 1\n',
        '"a\\nb\\e[31m": 1\n',
        "=: 1\n",
        "x" * 70_000 + ": 1\n",
        "x: " + "9" * 99 + "\n",
        "kind: train\n",
    ),
    *(
        "~: {}\n",
        '"": 1\n',
        '"a.b": 1\n',
        "run: ../../x\n",
        "run: /etc\n",
        'run: "a\\0b"\n',
        'run: "a\\n"\n',
        "run: é\n",
    ),
)


def value(rng: Random, depth: int = 0) -> Any:
    """Return any plain value."""
    form = rng.randrange(8 if depth < 3 else 6)
    if form == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if form == 7:
        return {rng.choice(TEXTS)[:300]: value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (rng.choice(NUMBERS), rng.choice(TEXTS), None, True, False, rng.randrange(-5, 100))[form]


def tree(rng: Random, root: Any) -> Any:
    """Return `root`, a tree of dictionaries and lists, with one mutation."""
    root = copy.deepcopy(root)
    places = _places(root)
    if not places:
        return value(rng)
    parent, key = rng.choice(places)
    match rng.randrange(7):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[_misspelt(rng, str(key))] = parent.pop(key)
        case 2 if isinstance(parent, list):
            parent.extend([copy.deepcopy(parent[key])] * rng.randrange(1, 4))
        case 3 if isinstance(parent, dict):
            parent[rng.choice(TEXTS)[:300]] = value(rng)
        case 4:
            parent[key] = [parent[key]]
        case 5:
            parent[key] = {"x": parent[key]}
        case _:
            parent[key] = value(rng)
    return root


def text(rng: Random, whole: str) -> str:
    """Return a text with one mutation of its characters, whatever they mean."""
    at, to = sorted((rng.randrange(len(whole) + 1), rng.randrange(len(whole) + 1)))
    lines = whole.splitlines(keepends=True) or [""]
    line = rng.randrange(len(lines))
    match rng.randrange(9):
        case 0:
            return whole[:at]
        case 1:
            return whole[:at] + whole[to:]
        case 2:
            return whole[:at] + rng.choice(SNIPPETS) + whole[at:]
        case 3:
            return "".join([*lines[:line], lines[line], *lines[line:]])
        case 4:
            return "".join([*lines[:line], rng.choice(SNIPPETS), *lines[line:]])
        case 5:
            indent = rng.choice((" ", "\t", "  ", "   "))
            return "".join([*lines[:line], indent + lines[line], *lines[line + 1 :]])
        case 6:
            return whole.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\u2028", "")))
        case 7:
            return rng.choice(("\ufeff", "---\n", "")) + whole + rng.choice(("\n---\n", "\n...\n", "\0", whole))
    return whole[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) + whole[at + 1 :]


def data(rng: Random, whole: bytes) -> bytes:
    """Return bytes with one mutation: some flipped, cut off, removed, doubled or inserted."""
    at, to = sorted((rng.randrange(len(whole) + 1), rng.randrange(len(whole) + 1)))
    match rng.randrange(6):
        case 0:
            changed = bytearray(whole)
            for _ in range(rng.randrange(1, 5) if whole else 0):
                changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 1:
            return whole[:at]
        case 2:
            return whole[:at] + whole[to:]
        case 3:
            return whole[:to] + whole[at:]
        case 4:
            return whole[:at] + rng.randbytes(rng.randrange(1, 9)) + whole[at:]
    return rng.choice(
        (b"", b"\xff\xfe" + whole, whole.decode("utf-8", "replace").encode("utf-16"), b"\0" * 64, whole * 2)
    )


def recipe(rng: Random, whole: str) -> str:
    """Return a recipe's text with one mutation, of its values or of its characters."""
    if rng.randrange(2):
        return text(rng, whole)
    changed = tree(rng, yaml.safe_load(whole))
    return yaml.safe_dump(
        changed,
        allow_unicode=bool(rng.randrange(2)),
        default_flow_style=bool(rng.randrange(2)),
        sort_keys=bool(rng.randrange(2)),
    )


def override(rng: Random, whole: str) -> str:
    """Return a change of the command line: a valid one, one that is nearly valid, or nonsense."""
    keys = _dotted(yaml.safe_load(whole))
    key = rng.choice(keys)
    match rng.randrange(5):
        case 0:
            key = _misspelt(rng, key)
        case 1:
            key = rng.choice(TEXTS)[:300]
        case 2:
            key = f"{key}.{rng.choice(('0', '-1', '99', 'x', '', ' ', '²', '9' * 5000))}"
    if not rng.randrange(4):
        return f"~{key}"
    if not rng.randrange(4):
        return text(rng, f"{key}=1")
    meant = rng.choice((rng.choice(TEXTS), rng.choice(SNIPPETS), str(rng.choice(NUMBERS)), repr(value(rng))))
    return f"{key}={meant}"


def json_file(rng: Random, raw: bytes, known: tuple[str, ...] = ()) -> bytes:
    """Return a JSON file's content with one mutation, of its values or of its bytes."""
    if not rng.randrange(4):
        return data(rng, raw)
    root = json.loads(raw)
    if known and isinstance(root, dict) and not rng.randrange(3):
        root[rng.choice(known)] = rng.choice((value(rng), HUGE, 10**6, -HUGE, [HUGE], {"a": HUGE}))
    else:
        root = tree(rng, root)
    return json.dumps(root).encode()


def safetensors(rng: Random, raw: bytes) -> bytes:
    """Return a safetensors file's content with one mutation of its length, header or data."""
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    match rng.randrange(12):
        case 0:
            odd = (0, 1, length - 1, length + 1, len(raw), 2**31, 2**63, 2**64 - 1, 100_000_000, rng.randrange(2**64))
            return struct.pack("<Q", rng.choice(odd)) + raw[8:]
        case 1:
            entry["dtype"] = rng.choice(("F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X", "", None, 3))
        case 2:
            entry["shape"] = rng.choice(
                ([], [0], [-1], [HUGE, HUGE], [2**63, 2], entry["shape"][::-1], [*entry["shape"], 1], "x", None, [1.5])
            )
        case 3:
            begin, end = entry["data_offsets"]
            entry["data_offsets"] = rng.choice(
                ([begin + 1, end + 1], [end, begin], [-1, end], [begin, 2**64], [begin], [begin, end, 0], [0, end], "x")
            )
        case 4:
            other = rng.choice(names)
            entry["data_offsets"], entry["shape"] = header[other]["data_offsets"], header[other]["shape"]
        case 5:
            header[rng.choice((name + "x", "x" * 3000, "", "model.embed_tokens.weight", "\0"))] = header.pop(name)
        case 6:
            del header[name]
        case 7:
            header = tree(rng, header)
        case 8:
            text_of = json.dumps(header)
            doubled = text_of[:-1] + ", " + json.dumps({name: entry})[1:]
            return struct.pack("<Q", len(doubled)) + doubled.encode() + body
        case 9:
            return raw[: 8 + length] + data(rng, body)
        case 10:
            return data(rng, raw[: 8 + length]) + body
        case _:
            return data(rng, raw)
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + body


def _places(node: Any) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, inner in items:
        found.append((node, key))
        found += _places(inner)
    return found


def _dotted(node: Any, prefix: str = "") -> list[str]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: list[str] = []
    for key, inner in items:
        found += [f"{prefix}{key}", *_dotted(inner, f"{prefix}{key}.")]
    return found


def _misspelt(rng: Random, word: str) -> str:
    at = rng.randrange(len(word) + 1)
    changes: tuple[Callable[[], str], ...] = (
        lambda: word[:at] + word[at + 1 :],
        lambda: word[:at] + rng.choice("aeöZ_.-0") + word[at:],
        word.upper,
        lambda: word * 50,
    )
    return rng.choice(changes)()
