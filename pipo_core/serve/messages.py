"""The turns of a chat, the tools that it offers and the form that it asks for, in the shapes that clients send."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def valid_text(text: str) -> str:
    """Return the text unchanged.

    Raises:
        ValueError: if it has lone surrogates: JSON can spell them, tokenizers cannot encode them.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds half of a surrogate pair")
    return text


def _is_object(text: str) -> str:
    """Return the text unchanged.

    Raises:
        ValueError: if it is not a JSON object.
    """
    try:
        if isinstance(json.loads(text or "{}"), dict):
            return text
    except (ValueError, RecursionError):
        pass
    raise ValueError("is not a JSON object")


def _writable(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object unchanged.

    Raises:
        ValueError: if it cannot be written as JSON again: for NaN, infinities, half characters, too deep nesting.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "holds what JSON cannot say: NaN, an infinity, half a character, or too deep nesting"
        ) from error
    return value


Text = Annotated[str, AfterValidator(valid_text)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_writable)]


class Strict(BaseModel):
    """A part of a body; keys that nobody reads are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(Strict):
    """One part of a message. Only text is accepted, no images or audio."""

    type: Literal["text"]
    text: Text


class CalledFunction(Strict):
    """What a call of a tool names; its arguments are a JSON object, as text."""

    name: Text
    arguments: Annotated[Text, AfterValidator(_is_object)] = "{}"


class MessageToolCall(Strict):
    """A call of a tool in an assistant's turn."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(Strict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: list[TextPart]
    name: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: list[MessageToolCall] = []
    tool_call_id: Text | None = None
    type: Literal["text", "message"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, message: Any) -> Any:
        """Return the message with one form for what clients spell in several; null means absent."""
        if not isinstance(message, dict):
            return message
        plain = {name: value for name, value in message.items() if value is not None and value != []}
        if plain.get("role") == "developer":  # OpenAI's newer name for the system's turn
            plain["role"] = "system"
        if "content" not in plain and plain.get("role") == "assistant":
            plain["content"] = ""
        if isinstance(plain.get("content"), str):
            plain["content"] = [{"type": "text", "text": plain["content"]}]
        return plain

    @property
    def text(self) -> str:
        """Return the content as one string."""
        return "".join(part.text for part in self.content)

    @property
    def size(self) -> int:
        """Return how many characters it brings into a prompt, about."""
        called = sum(len(call.function.name) + len(call.function.arguments) for call in self.tool_calls)
        return len(self.text) + len(self.reasoning_content or "") + called

    @property
    def about_tools(self) -> bool:
        """Return whether it calls a tool or is what a tool returned."""
        return self.role == "tool" or bool(self.tool_calls)

    def for_template(self) -> dict[str, Any]:
        """Return the message as chat templates take it: the arguments of calls are objects there."""
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")},
            }
            for call in self.tool_calls
        ]
        further = {
            "name": self.name,
            "reasoning_content": self.reasoning_content,
            "tool_calls": calls,
            "tool_call_id": self.tool_call_id,
        }
        return {"role": self.role, "content": self.text, **{key: value for key, value in further.items() if value}}


class OfferedFunction(Strict):
    """A function that the model may call; calls that are not forced follow its parameters as the model will."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: OfferedFunction

    def for_template(self) -> dict[str, Any]:
        """Return the tool as chat templates take it."""
        return self.model_dump(exclude_none=True)


class NamedFunction(Strict):
    """A function by its name."""

    name: Text


class NamedTool(Strict):
    """The tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class NamedSchema(Strict):
    """A JSON schema that an answer follows. It is always followed strictly."""

    name: Text
    description: Text | None = None
    schema_: Annotated[JsonObject, Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of an answer: text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _with_its_schema(self) -> Self:
        if (self.json_schema is not None) is not (self.type == "json_schema"):
            raise ValueError("json_schema belongs to the type json_schema, and to no other")
        return self
