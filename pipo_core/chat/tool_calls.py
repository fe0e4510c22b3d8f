r"""Finds the calls of tools in an answer, in the two layouts that Qwen's chat templates teach.

Qwen3.5 writes a call's arguments as text between marks of their own, Qwen3 and 2.5 write one JSON object::

    <tool_call>                       <tool_call>
    <function=weather>                {"name": "weather", "arguments": {"city": "Rome"}}
    <parameter=city>                  </tool_call>
    Rome
    </parameter>
    </function>
    </tool_call>
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_BEGIN = "<tool_call>"
_END = "</tool_call>"
_FUNCTION_BEGIN = "<function="
_FUNCTION_END = "</function>"
_FUNCTION = re.compile(r"<function=([^<>\n]+)>(.*)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^<>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


class ToolCall(NamedTuple):
    """A call of a tool.

    Attributes:
        name: the tool's.
        arguments: a JSON object, as text.
    """

    name: str
    arguments: str


class ToolCallSplitter:
    """Splits an answer into its text and its calls; the answer's pieces are fed in order.

    A call counts once it is complete. What only looks like one (no such tool, no JSON, no end) stays text, so nothing
    that the model wrote is lost. The result does not depend on how the text was cut.

    Args:
        tools: the tools that were offered, in OpenAI's shape.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._properties = {tool["function"]["name"]: _properties(tool["function"]) for tool in tools}
        self._held = ""
        self._after_call = False  # nothing was said behind the last call

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """Return the text and the calls that a piece completes."""
        text, said = self._held + text, ""
        calls: list[ToolCall] = []
        while True:
            before, begin, inside = text.partition(_BEGIN)
            body, end, rest = _call_in(inside)
            if not end:  # white space stays with what may be a call: it belongs to the layout then
                sure = before if begin else before[: len(before) - _beginning_at_end(before)]
                sure = sure.rstrip()
                self._held = text[len(sure) :]
                return said + self._say(sure), calls
            call = self._read(body)
            if call is None:
                said += self._say(before + begin + body + end)
            else:
                said += self._say(before.rstrip())
                calls.append(call)
                self._after_call = True
            text = rest

    def end(self) -> str:
        """End the answer and return the held-back text of a call that has no end."""
        held, self._held = self._held, ""
        return self._say(held)

    def _say(self, text: str) -> str:
        """Return a text; behind a call without its leading white space."""
        if self._after_call:
            text = text.lstrip()
            self._after_call = not text
        return text

    def _read(self, body: str) -> ToolCall | None:
        """Return the call in the text between the marks; None if it is none of an offered tool."""
        found = _FUNCTION.search(body)
        if found is not None:
            name, arguments = found[1].strip(), self._typed(found[1].strip(), found[2])
        else:
            try:
                written = json.loads(body)
                name, arguments = written["name"], written.get("arguments") or {}
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                return None
        if not isinstance(name, str) or name not in self._properties or not isinstance(arguments, dict):
            return None
        try:
            return ToolCall(name, json.dumps(arguments, ensure_ascii=False, allow_nan=False))
        except ValueError:  # NaN and the like
            return None

    def _typed(self, name: str, body: str) -> dict[str, Any]:
        """Return the arguments of Qwen3.5's layout, in which only the tool's schema tells 7 from "7"."""
        declared = self._properties.get(name, {})
        return {key: _value(text, declared.get(key)) for key, text in _PARAMETER.findall(body)}


def _properties(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schemas of a function's parameters; none where they are not given as an object's."""
    parameters = function.get("parameters")
    found = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _call_in(inside: str) -> tuple[str, str, str]:
    """Return the call's text, its end mark and the rest; without a mark if the call is not complete.

    In Qwen3.5's layout an argument may spell the end mark, so the function's own end comes first.
    """
    begin = inside.find(_FUNCTION_END) if inside.lstrip().startswith(_FUNCTION_BEGIN) else 0
    if begin < 0:
        return inside, "", ""
    body, end, rest = inside[begin:].partition(_END)
    return inside[:begin] + body, end, rest


def _value(text: str, schema: Any) -> Any:
    """Return an argument from its text; where its schema takes both, text that is not ``null`` stays text."""
    kinds = _kinds(schema)
    if text in ("null", "None") and "null" in kinds:
        return None
    if "string" in kinds:
        return text
    try:
        # Templates write Python's words for these, so models learn them.
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except (ValueError, RecursionError):
        return text


def _kinds(schema: Any) -> set[str]:
    """Return the types that a schema allows, as far as it names them at its top."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    kinds = {named} if isinstance(named, str) else {kind for kind in named or () if isinstance(kind, str)}
    values = schema.get("enum")
    if not kinds and isinstance(values, list):
        kinds = {"string"} if all(isinstance(value, str) for value in values) else set()
    for name in ("anyOf", "oneOf"):
        options = schema.get(name)
        for option in options if isinstance(options, list) else ():
            kinds |= _kinds(option)
    return kinds


def _beginning_at_end(text: str) -> int:
    """Return how many characters at the end of a text may begin a call."""
    return next((size for size in range(len(_BEGIN) - 1, 0, -1) if text.endswith(_BEGIN[:size])), 0)
