"""The bodies that the OpenAI interface accepts, and the shape of its errors. Token budgets exclude PAD."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from pipo_core.errors import UsageError
from pipo_core.serve.messages import Message, NamedTool, ResponseFormat, Strict, Text, Tool, valid_text

UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "functions": (None, []),
    "function_call": (None, "none"),
    "parallel_tool_calls": (None, True),
    "best_of": (None, 1),
    "suffix": (None, ""),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
}
"""Fields of OpenAI's interface that this server does not support, each with the values that ask for nothing."""

WITHOUT_EFFECT = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "verbosity"),
    }
)
"""Fields that are taken and change nothing: they are about OpenAI's own service."""

_MOST_LOGPROBS = 20
_MOST_LOGPROBS_OF_IDS = 1024
_MOST_BIASES = 1024
_MOST_TOKENS = 1_000_000_000


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
        if not _are_ids(prompt) and not (isinstance(prompt, str) and valid_text(prompt)):
            raise ValueError("a prompt is a text or a list of token ids, and not empty")
    return prompts


Prompt = Any
"""A text or a list of token ids; `_prompts` has checked it."""
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
StopText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(valid_text)]


class StreamOptions(Strict):
    """What a stream contains besides the text."""

    include_usage: bool = False


class TemplateOptions(Strict):
    """Options of the chat template."""

    enable_thinking: bool = True


class PairOptions(Strict):
    """Options of pair decoding, where SGLang's servers have them, too."""

    tau: float | None = Field(None, ge=0, le=1)


class Defaults(Strict):
    """Sampling of a request that does not say: what the checkpoint was measured with, if it records that."""

    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=_MOST_TOKENS)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=0.01, le=10)
    min_p: float = Field(0.0, ge=0, le=1)


class Body(Strict):
    """Fields that chats and completions share. A field that is null counts as absent."""

    model: Text
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=_MOST_TOKENS)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    min_p: float | None = Field(None, ge=0, le=1)
    logit_bias: Annotated[dict[TokenId, Bias], Field(default_factory=dict, max_length=_MOST_BIASES)]
    min_tokens: int = Field(0, ge=0, le=_MOST_TOKENS)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: int = Field(1, ge=1, le=16)
    ignore_eos: bool = False
    custom_params: PairOptions = PairOptions()
    stop: Annotated[list[StopText], Field(default_factory=list, max_length=4), BeforeValidator(_listed)]
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise BodyError("stream_options needs stream: true", param="stream_options")
        return self

    def sampling(self, defaults: Defaults) -> dict[str, Any]:
        """Return how tokens are sampled, the seed left out; ``top_k`` of -1 or 0 keeps all."""
        said = {name: getattr(self, name) for name in Defaults.model_fields}
        merged = {**defaults.model_dump(), **{name: value for name, value in said.items() if value is not None}}
        return {
            **merged,
            "top_k": max(merged["top_k"], 0),
            "logit_bias": tuple((int(token), value) for token, value in self.logit_bias.items()),
            "min_tokens": self.min_tokens,
            "logprobs": self.top_scores,
        }

    @property
    def top_scores(self) -> int | None:
        """Return how many of the likeliest tokens are told beside each token; None tells no log-probabilities."""
        raise NotImplementedError

    @property
    def budget_name(self) -> str:
        """Return the field that the budget was given in."""
        return "max_tokens"


class ChatBody(Body):
    """The body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=_MOST_LOGPROBS)
    tools: Annotated[list[Tool], Field(default_factory=list, max_length=128)]
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    response_format: ResponseFormat = ResponseFormat(type="text")

    @model_validator(mode="after")
    def _a_tool_to_call(self) -> Self:
        if self.forced == []:
            raise BodyError("tool_choice names no tool of tools", param="tool_choice")
        return self

    @model_validator(mode="after")
    def _top_of_some(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise BodyError("top_logprobs needs logprobs: true", param="top_logprobs")
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise BodyError("give max_tokens or max_completion_tokens, not both", param="max_completion_tokens")
        return self

    @property
    def budget(self) -> int | None:
        """Return the most tokens of an answer, PAD not counted; None for as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top_scores(self) -> int | None:
        """Return how many of the likeliest tokens are told beside each token; None tells no log-probabilities."""
        return self.top_logprobs if self.logprobs else None

    @property
    def budget_name(self) -> str:
        """Return the field that the budget was given in."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def thinks(self) -> bool:
        """Return whether the answer is to begin with a thought."""
        return self.chat_template_kwargs.enable_thinking and self.reasoning_effort != "none"

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.forced is not None and self.response_format.type != "text":
            raise BodyError("give tool_choice that forces a call, or response_format, not both", param="tool_choice")
        if self.min_tokens and (self.forced is not None or self.response_format.type != "text"):
            raise BodyError("min_tokens: a grammar says itself when an answer may end", param="min_tokens")
        return self

    @property
    def offered(self) -> list[Tool]:
        """Return the tools that the model may call."""
        return [] if self.tool_choice == "none" else self.tools

    @property
    def called(self) -> list[Tool]:
        """Return the tools of which calls are looked for: JSON that a schema asked for is no call."""
        return self.offered if self.response_format.type == "text" else []

    @property
    def forced(self) -> list[Tool] | None:
        """Return the tools of which the model must call one; None if it need not."""
        if isinstance(self.tool_choice, str):
            return self.tools if self.tool_choice == "required" else None
        return [tool for tool in self.tools if tool.function.name == self.tool_choice.function.name]


class CompletionBody(Body):
    """The body of ``/v1/completions``: one prompt, or several, each a text or a list of token ids."""

    prompt: Annotated[list[Prompt], Field(min_length=1, max_length=16), BeforeValidator(_prompts)]
    logprobs: int | None = Field(None, ge=0, le=_MOST_LOGPROBS_OF_IDS)
    echo: bool = False
    return_tokens_as_token_ids: bool = False

    @model_validator(mode="after")
    def _whole_echo(self) -> Self:
        for name in ("echo", "return_tokens_as_token_ids"):
            if getattr(self, name) and self.stream:
                raise BodyError(f"{name} is for answers that are not streamed", param=name)
        return self

    @model_validator(mode="after")
    def _few_scores(self) -> Self:
        if (self.logprobs or 0) > _MOST_LOGPROBS and not self.return_tokens_as_token_ids:
            message = f"logprobs above {_MOST_LOGPROBS} need return_tokens_as_token_ids"
            raise BodyError(message, param="logprobs")
        return self

    @property
    def budget(self) -> int | None:
        """Return the most tokens of an answer, PAD not counted; None for as many as fit."""
        return self.max_tokens

    @property
    def top_scores(self) -> int | None:
        """Return how many of the likeliest tokens are told beside each token; None tells no log-probabilities."""
        return self.logprobs


B = TypeVar("B", bound=Strict)


def idle_fields(body: Any) -> list[str]:
    """Return the names of a parsed JSON body's fields that are taken and have no effect."""
    return sorted(name for name in WITHOUT_EFFECT if body.get(name) is not None) if isinstance(body, dict) else []


def read_body(shape: type[B], body: Any) -> B:
    """Return a parsed JSON body as ``shape``.

    Raises:
        BodyError: for the first field that is invalid or not supported.
    """
    if not isinstance(body, dict):
        raise BodyError("the body must be a JSON object")
    rest = {name: value for name, value in body.items() if value is not None and name not in WITHOUT_EFFECT}
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
