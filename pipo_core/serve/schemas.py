"""The bodies that the OpenAI interface accepts, and the shape of its errors. Token budgets exclude PAD."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipo_core.errors import UsageError

# Fields of OpenAI's interface that this server does not support, each with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "logprobs": (None, False),
    "top_logprobs": (None,),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "echo": (None, False),
    "best_of": (None,),
    "suffix": (None,),
    "modalities": (None, ["text"]),
    "audio": (None,),
}


class BodyError(UsageError):
    """A body that is rejected with status 400; ``param`` names the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Keep the message, and the ``param`` and ``code`` of OpenAI's error shape."""
        super().__init__(message)
        self.param = param
        self.code = code


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """Return an error in OpenAI's shape; ``kind`` is its ``type``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _utf8(text: str) -> str:
    """Return the text unchanged.

    Raises:
        ValueError: if it has lone surrogates: JSON can spell them, tokenizers cannot encode them.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("holds half of a surrogate pair")
    return text


def _listed(value: Any) -> Any:
    """Return a single text as a list of one."""
    return [value] if isinstance(value, str) else value


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _prompts(value: Any) -> list[str | list[int]]:
    """Return one prompt, or several, as a list.

    Raises:
        ValueError: if one of them is neither a text nor a list of token ids, or empty.
    """
    prompts = value if isinstance(value, list) and not _are_ids(value) else [value]
    for prompt in prompts:
        if not _are_ids(prompt) and not (isinstance(prompt, str) and _utf8(prompt)):
            raise ValueError("a prompt is a text or a list of token ids, and not empty")
    return prompts


Text = Annotated[str, AfterValidator(_utf8)]
Prompt = Any
"""A text or a list of token ids; `_prompts` has checked it."""
StopText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_utf8)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class TextPart(_Strict):
    """One part of a message. Only text is accepted, no images or audio."""

    type: Literal["text"]
    text: Text


class Message(_Strict):
    """One turn of a chat, in the shapes that clients send and that this server answers in."""

    role: Literal["system", "user", "assistant"]
    content: list[TextPart]
    name: Text | None = None
    reasoning_content: Text | None = None
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

    def for_template(self) -> dict[str, str]:
        """Return the message as chat templates take it."""
        further = {"name": self.name, "reasoning_content": self.reasoning_content}
        return {"role": self.role, "content": self.text, **{key: value for key, value in further.items() if value}}


class StreamOptions(_Strict):
    """What a stream contains besides the text."""

    include_usage: bool = False


class TemplateOptions(_Strict):
    """Options of the chat template."""

    enable_thinking: bool = True


class PairOptions(_Strict):
    """Options of pair decoding, where SGLang's servers have them, too."""

    tau: float | None = Field(None, ge=0, le=1)


class Defaults(_Strict):
    """Sampling of a request that does not say: what the checkpoint was measured with, if it records that."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=0.01, le=10)


class _Body(_Strict):
    """Fields that chats and completions share. A field that is null counts as absent."""

    model: Text
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: int = Field(1, ge=1, le=16)
    ignore_eos: bool = False
    custom_params: PairOptions = PairOptions()
    stop: Annotated[list[StopText], Field(max_length=4), BeforeValidator(_listed)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Text | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    def sampling(self, defaults: Defaults) -> dict[str, Any]:
        """Return how tokens are sampled, the seed left out; ``top_k`` of -1 or 0 keeps all."""
        said = {name: getattr(self, name) for name in Defaults.model_fields}
        merged = {**defaults.model_dump(), **{name: value for name, value in said.items() if value is not None}}
        return {**merged, "top_k": max(merged["top_k"], 0)}


class ChatBody(_Body):
    """The body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    chat_template_kwargs: TemplateOptions = TemplateOptions()

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give max_tokens or max_completion_tokens, not both")
        return self

    @property
    def budget(self) -> int | None:
        """Return the most tokens of an answer, PAD not counted; None for as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionBody(_Body):
    """The body of ``/v1/completions``: one prompt, or several, each a text or a list of token ids."""

    prompt: Annotated[list[Prompt], Field(min_length=1, max_length=16), BeforeValidator(_prompts)]

    @property
    def budget(self) -> int | None:
        """Return the most tokens of an answer, PAD not counted; None for as many as fit."""
        return self.max_tokens


B = TypeVar("B", bound=_Body)


def read_body(shape: type[B], body: Any) -> B:
    """Return a parsed JSON body as ``shape``.

    Raises:
        BodyError: for the first field that is invalid or not supported.
    """
    if not isinstance(body, dict):
        raise BodyError("the body must be a JSON object")
    rest = {name: value for name, value in body.items() if value is not None}
    for name, nothing in UNSUPPORTED.items():
        if name in rest and not _asks_for_nothing(rest.pop(name), nothing):
            raise BodyError(f"{name} is not supported", param=name, code="unsupported_parameter")
    try:
        return shape.model_validate(rest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(key) for key in first["loc"]).encode("utf-8", "replace").decode()
        said = first["msg"].removeprefix("Value error, ")
        raise BodyError(f"{where or 'the body'}: {said}", param=where or None) from None


def _asks_for_nothing(value: object, nothing: Sequence[object]) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in nothing)
