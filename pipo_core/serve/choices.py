"""One choice of an answer: what the model wrote becomes thought, text and calls of tools."""

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipo_core.chat import ThoughtSplitter, ToolCall, ToolCallSplitter


class Parts(NamedTuple):
    """What a piece of text adds to a choice.

    Attributes:
        thought: to the thought, where that is told apart.
        answer: to the text.
        calls: calls of tools that it completes.
    """

    thought: str
    answer: str
    calls: list[ToolCall]


class ChoiceText:
    """Splits a choice's text as it arrives, in pieces of any size.

    Args:
        opens_thought: whether it begins with a thought that is told apart.
        tools: that were offered, in OpenAI's shape.

    Attributes:
        calls: how many calls were completed so far.
        scored: characters of the tokens whose scores were told so far.
    """

    def __init__(self, *, opens_thought: bool, tools: Sequence[dict[str, Any]]) -> None:
        self._thoughts = ThoughtSplitter() if opens_thought else None
        self._tools = ToolCallSplitter(tools) if tools else None
        self.calls = 0
        self.scored = 0

    def feed(self, text: str, *, last: bool) -> Parts:
        """Return what a piece adds; the last piece also adds what was held back."""
        calls: list[ToolCall] = []
        thought, answer = "", text
        if self._thoughts is not None:
            thought, answer = self._thoughts.feed(text)
            thought += self._thoughts.end() if last else ""
        if self._tools is not None:
            answer, calls = self._tools.feed(answer)
            answer += self._tools.end() if last else ""
        self.calls += len(calls)
        return Parts(thought, answer, calls)

    def reason(self, reason: str) -> str:
        """Return why the choice ended, in OpenAI's words."""
        return "tool_calls" if self.calls and reason == "stop" else reason


def called(call: ToolCall) -> dict[str, Any]:
    """Return a call in OpenAI's shape, with an id of its own."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
