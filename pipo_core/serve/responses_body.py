"""The body of OpenAI's newer interface, ``/v1/responses``, and the chat that it asks for.

Nothing is stored between requests, so a conversation is sent whole each time, as clients do that set ``store: false``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.serve.messages import JsonObject, Strict, Text
from pipo_core.serve.schemas import BodyError, ChatBody, PairOptions, read_body

_REFUSED = {
    "previous_response_id": "answers are not stored: send the whole conversation as input",
    "conversation": "answers are not stored: send the whole conversation as input",
    "prompt": "prompts are not stored: send instructions and input",
    "background": "an answer is given on the connection that asks for it",
    "max_tool_calls": "the server calls no tools itself",
    "context_management": "the conversation is taken as it is sent",
}
_PARAMS = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "response_format": "text.format",
}
"""Where the chat's fields come from, if not from the input."""
_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text")


class Reasoning(Strict):
    """How much the model is to think; a summary is nothing that it can give."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto"] | None = None


class TextFormat(Strict):
    """The form of the answer's text; a schema stands beside its type here."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Text = "answer"
    description: Text | None = None
    schema_: Annotated[JsonObject | None, Field(alias="schema")] = None
    strict: bool | None = None

    def for_chat(self) -> dict[str, Any]:
        """Return it as a chat's ``response_format``."""
        schema = {"name": self.name, "schema": self.schema_}
        return {"type": self.type, "json_schema": schema if self.type == "json_schema" else None}


class NamedFunction(Strict):
    """The function that the model must call."""

    type: Literal["function"]
    name: Text


class TextOptions(Strict):
    """What is asked of the answer's text."""

    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesBody(Strict):
    """The body of ``/v1/responses``. A field that is null counts as absent."""

    model: Text
    input: Text | Annotated[list[JsonObject], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000_000)
    reasoning: Reasoning = Reasoning()
    text: TextOptions = TextOptions()
    tools: Annotated[list[JsonObject], Field(default_factory=list, max_length=128)]
    tool_choice: Literal["none", "auto", "required"] | NamedFunction = "auto"
    # Thoughts are sent as they are, so there is nothing encrypted to include; clients that keep no state ask for it.
    include: Annotated[list[Literal["reasoning.encrypted_content"]], Field(default_factory=list, max_length=1)]
    truncation: Literal["disabled"] = "disabled"
    custom_params: PairOptions = PairOptions()
    stream: bool = False


def read_responses(body: Any) -> tuple[ResponsesBody, ChatBody]:
    """Return a parsed JSON body, and the chat that it asks for.

    Raises:
        BodyError: for the first field that is invalid or not supported.
    """
    if isinstance(body, dict):
        for name, why in _REFUSED.items():
            if body.get(name) not in (None, False):
                raise BodyError(f"{name} is not supported: {why}", param=name, code="unsupported_parameter")
        body = {name: value for name, value in body.items() if name not in _REFUSED}
    asked = read_body(ResponsesBody, body)
    chat = {
        "model": asked.model,
        "messages": _messages(asked),
        "max_completion_tokens": asked.max_output_tokens,
        **{name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "stream")},
        "tool_choice": asked.tool_choice
        if isinstance(asked.tool_choice, str)
        else {"type": "function", "function": {"name": asked.tool_choice.name}},
        "response_format": asked.text.format.for_chat(),
        "reasoning_effort": asked.reasoning.effort,
        "tools": [_tool(number, tool) for number, tool in enumerate(asked.tools)],
        "custom_params": asked.custom_params.model_dump(),
    }
    with in_own_words():
        return asked, read_body(ChatBody, chat)


@contextmanager
def in_own_words() -> Iterator[None]:
    """Let errors in the block name fields of ``/v1/responses``, not those of the chat that was made of them.

    Raises:
        BodyError: instead of one about the chat.
    """
    try:
        yield
    except BodyError as error:
        name = (error.param or "").partition(".")[0]
        param = _PARAMS.get(name, "input")
        message = error.message.replace("messages.", "turns of input: ")
        message = message.replace(name, param) if name in _PARAMS else message
        raise BodyError(message, param=param, code=error.code) from None


def _messages(asked: ResponsesBody) -> list[dict[str, Any]]:
    """Return the turns of a chat; thoughts and calls join the assistant's turn that they belong to."""
    turns: list[dict[str, Any]] = []
    if asked.instructions:
        turns.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        return [*turns, {"role": "user", "content": asked.input}]
    thought = ""
    for number, item in enumerate(asked.input):
        where = f"input.{number}"
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            turn = {"role": item.get("role"), "content": _text(where, item.get("content"))}
            if turn["role"] == "assistant" and thought:
                turn["reasoning_content"] = thought
            thought = ""
            turns.append(turn)
        elif kind == "reasoning":
            thought += _text(where, item.get("content") or [])
        elif kind == "function_call":
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": "", "reasoning_content": thought or None})
                thought = ""
            function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
            turns[-1].setdefault("tool_calls", []).append({"id": item.get("call_id"), "function": function})
        elif kind == "function_call_output":
            told = _text(where, item.get("output"))
            turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": told})
        else:
            raise BodyError(f"{where}: items of type {str(kind)[:40]!r} are not supported", param=where)
    return turns


def _text(where: str, content: Any) -> str:
    """Return the text of an item, of one or several parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BodyError(f"{where}: its text is missing", param=where)
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise BodyError(f"{where}: only parts of text are supported", param=where)
    return "".join(part["text"] for part in content)


def _tool(number: int, tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BodyError(f"tools.{number}: only functions are supported", param=f"tools.{number}")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
