"""YAML with positions: plain values, each with its line and column in the text.

Scalars follow YAML 1.2's core schema: `1e-4` is a number, `no` is text, `2026-01-01` is text. Anything but a plain
tree of reasonable size (tags, cycles, alias bombs, deep nesting) is a `YamlProblem`.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipo_core.recipes.base import Loc

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 40
MAX_VALUES = 20_000


@dataclass(frozen=True)
class Position:
    """Line and column, both from 1."""

    line: int
    column: int


class YamlProblem(Exception):
    """A text that is not YAML, or not YAML that a recipe can be; `position` is where."""

    def __init__(self, message: str, position: Position | None = None) -> None:
        """Keep the message and the position; without one it is the beginning."""
        super().__init__(message)
        self.position = position or Position(1, 1)


@dataclass
class Document:
    """A parsed text.

    Attributes:
        value: plain dicts, lists and scalars.
        keys: positions of keys, by path.
        values: positions of values, by path.
        duplicates: keys that were given twice, with the position of the second.
        end: how many characters of the text the value takes; comments may follow.
    """

    value: Any = None
    keys: dict[Loc, Position] = field(default_factory=dict)
    values: dict[Loc, Position] = field(default_factory=dict)
    duplicates: list[tuple[Loc, Position]] = field(default_factory=list)
    end: int = 0


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars and a limit on depth; only its composer is used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            mark = event.start_mark
            raise YamlProblem(f"nested more than {MAX_DEPTH} deep", _position(mark))
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
SCALARS = [
    (f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})\\Z"), list(first)) for tag, pattern, first in _SCALARS
]
"""YAML 1.2's scalars that are not text: tag, pattern, possible first characters."""

for _tag, _regexp, _first in SCALARS:
    _Loader.add_implicit_resolver(_tag, _regexp, _first)


def parse(text: str) -> Document:
    """Return the parsed text; an empty text has the value None.

    Raises:
        YamlProblem: if it is not YAML that a recipe can be.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(f"longer than {MAX_CHARACTERS:,} characters; this is not a recipe")
    document = Document()
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        except (ValueError, OverflowError) as error:
            # PyYAML does not check the numbers of directives and of escaped characters.
            raise YamlProblem("not valid YAML: a number is out of range", _position(loader.get_mark())) from error
        finally:
            loader.dispose()
        if root is not None:
            document.value = _Walk(document).value(root, ())
            document.end = root.end_mark.index
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(
            f"not valid YAML: {' '.join(filter(None, (error.context, error.problem)))}",
            _position(mark) if mark else None,
        ) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise YamlProblem(f"not valid YAML: character {error.character!r} is not allowed", position) from error
    except RecursionError as error:
        raise YamlProblem("nested too deep") from error
    return document


_KEY_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "null", "bool", "int", "float")}


class _Walk:
    """Turns nodes into plain values and counts the values, because aliases can make many of few nodes."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        here = _position(node.start_mark)
        self.count += 1
        if self.count > MAX_VALUES:
            raise YamlProblem(f"more than {MAX_VALUES:,} values once its aliases are written out", here)
        if len(loc) > MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} deep (an alias inside its own anchor?)", here)
        self.document.values[loc] = here
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, here)
        raise YamlProblem(f"the tag {node.tag} is not allowed", here)

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = _position(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlProblem("a key must be a word", here)
            if key_node.tag not in _KEY_TAGS:
                raise YamlProblem(f"the tag {key_node.tag} is not allowed", here)
            key = _text(key_node, here)
            if key in result:
                self.document.duplicates.append(((*loc, key), here))
                continue
            self.document.keys[(*loc, key)] = here
            result[key] = self.value(value_node, (*loc, key))
        return result


def _scalar(node: yaml.ScalarNode, here: Position) -> Any:
    text = _text(node, here)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return _integer(text, here)
        case "float":
            return _float(text, here)
    raise YamlProblem(f"the tag {node.tag} is not allowed", here)


def _text(node: yaml.ScalarNode, here: Position) -> str:
    text: str = node.value
    try:
        # JSON escapes a character beyond 16 bits as a surrogate pair, which YAML reads as two characters: join them.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise YamlProblem("half of a surrogate pair (an escape like \\ud800) is not text", here) from error
    return text


def _integer(text: str, here: Position) -> int:
    if len(text) > 100:
        raise YamlProblem("a number of more than 100 digits", here)
    try:
        number = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    except ValueError:
        raise YamlProblem(f"{text!r} is not an integer", here) from None
    if not -(2**63) <= number < 2**63:
        raise YamlProblem(f"{text} does not fit into 64 bits", here)
    return number


def _float(text: str, here: Position) -> float:
    try:
        return float(re.sub(r"\.(?=(inf|nan)$)", "", text.lower()))
    except ValueError:
        raise YamlProblem(f"{text!r} is not a number", here) from None


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)
