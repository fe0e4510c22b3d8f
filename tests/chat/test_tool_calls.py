"""Calls of tools in answers, cut into pieces anywhere."""

import json
import random
from typing import Any

import pytest

from pipo_core.chat import ToolCall, ToolCallSplitter

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "unit": {"enum": ["1", "2"]},
        "rain": {"type": ["boolean", "null"]},
    },
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "parameters": {"properties": ["no", "object"]}}},
]
XML = (
    "<tool_call>\n<function=weather>\n<parameter=city>\n{city}\n</parameter>\n<parameter=days>\n{days}\n</parameter>\n"
    "</function>\n</tool_call>"
)


def split(text: str, rng: random.Random | None = None) -> tuple[str, list[ToolCall]]:
    splitter = ToolCallSplitter(TOOLS)
    cuts = sorted(rng.sample(range(len(text) + 1), min(len(text), rng.randrange(9)))) if rng else []
    said = ""
    calls: list[ToolCall] = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        more, found = splitter.feed(text[begin:end])
        said, calls = said + more, calls + found
    return said + splitter.end(), calls


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False))


SAME = "the whole text"
ONE = "<tool_call><function=weather><parameter={}>{}</parameter></function></tool_call>"
CASES = [
    ("Hello", "Hello", []),
    ("", "", []),
    (XML.format(city="Rome", days=3), "", [call("weather", city="Rome", days=3)]),
    (XML.format(city="7", days="7"), "", [call("weather", city="7", days=7)]),  # the schema tells 7 from "7"
    (XML.format(city="a\nb </p> <x>", days="many"), "", [call("weather", city="a\nb </p> <x>", days="many")]),
    ("Let me see.\n\n" + XML.format(city="Rom", days=1), "Let me see.", [call("weather", city="Rom", days=1)]),
    ("\n\n" + XML.format(city="Rom", days=1) + "\n", "", [call("weather", city="Rom", days=1)]),
    (
        XML.format(city="Rom", days=1) + "\n" + '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "",
        [call("weather", city="Rom", days=1), call("now")],
    ),
    ('<tool_call>{"name": "now"}</tool_call> Done.', "Done.", [call("now")]),
    ("<tool_call><function=now></function></tool_call>", "", [call("now")]),
    (ONE.format("note", "12345"), "", [call("weather", note="12345")]),
    (ONE.format("note", "null"), "", [call("weather", note=None)]),
    (ONE.format("unit", "2"), "", [call("weather", unit="2")]),
    (ONE.format("rain", "True"), "", [call("weather", rain=True)]),
    (ONE.format("rain", "None"), "", [call("weather", rain=None)]),
    (ONE.format("city", "a</tool_call>b"), "", [call("weather", city="a</tool_call>b")]),
    (ONE.format("days", "NaN"), SAME, []),
    (ONE.format("days", "1e999"), SAME, []),
    # what only looks like a call stays text, to the last character
    ("a <tool_call> b", SAME, []),
    ("a <tool_ca", SAME, []),
    ("1 < 2, <tool>", SAME, []),
    ("<tool_call>{}</tool_call>", SAME, []),
    ("<tool_call>[1]</tool_call>", SAME, []),
    ('<tool_call>{"name": "other"}</tool_call> x', SAME, []),
    ('<tool_call>{"name": ["now"]}</tool_call>', SAME, []),
    ("<tool_call><function=other></function></tool_call>", SAME, []),
    (
        '<tool_call>{"name": "now", "arguments": 3}</tool_call>',
        '<tool_call>{"name": "now", "arguments": 3}</tool_call>',
        [],
    ),
    ("<tool_call>" + "[" * 9999 + "</tool_call>", SAME, []),
    ("trailing \n", SAME, []),
]


@pytest.mark.parametrize(("text", "said", "calls"), CASES)
def test_a_call_is_found_and_nothing_is_lost(text: str, said: str, calls: list[ToolCall]) -> None:
    said = text if said is SAME else said
    assert split(text) == (said, calls)
    rng = random.Random(text)
    for _ in range(60):
        assert split(text, rng) == (said, calls)
