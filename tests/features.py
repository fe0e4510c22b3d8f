"""What clients of OpenAI's interface use, one check a feature, for both servers: on the torch engine and on SGLang.

Each check talks through the official client. `docs/serving.md` has the same table; a test compares them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from pipo_core.data.tiny.tokenizer import CHAT_TEMPLATE

QUESTION: dict[str, Any] = {"role": "user", "content": "What is 11+6+2-4?"}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sum": {"enum": [7, 15]}},
    "required": ["sum"],
    "additionalProperties": False,
}

WORKS = "works"
IGNORED = "has no effect"
TOOL_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\nYou may call:\\n' }}
{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') | trim }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + (call.function.name | tojson) + (call.function.arguments | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
""" + CHAT_TEMPLATE[CHAT_TEMPLATE.index("{%- if add_generation_prompt %}") :]


@dataclass(frozen=True)
class Server:
    """A server that is asked.

    Attributes:
        client: the official client, speaking to it.
        model: the name of its model.
        ends: the ids that end its texts.
    """

    client: OpenAI
    model: str
    ends: frozenset[int]

    def chat(self, *messages: Any, **body: Any) -> Any:
        """Ask a chat."""
        turns: list[Any] = list(messages) or [QUESTION]
        return self.client.chat.completions.create(model=self.model, messages=turns, **(GREEDY | body))

    def complete(self, prompt: Any = "3+4=", **body: Any) -> Any:
        """Ask a completion."""
        return self.client.completions.create(model=self.model, prompt=prompt, **(GREEDY | body))

    def text(self, prompt: Any = "3+4=", **extra: Any) -> str:
        """Return the text of a completion, asked with fields that the client does not know."""
        text: str = self.complete(prompt, extra_body=extra).choices[0].text
        return text


@dataclass(frozen=True)
class Feature:
    """Something that clients use.

    Attributes:
        name: as the table has it.
        check: raises AssertionError unless the server does it.
        torch: the torch engine's server does it (`WORKS`), ignores it (`IGNORED`), or else these words are in its
            refusal.
        sglang: the same of SGLang's.
    """

    name: str
    check: Callable[[Server], None]
    torch: str = WORKS
    sglang: str = WORKS

    def confirm(self, server: Server, said: str) -> None:
        """Check that a server treats the feature as it is ``said``."""
        if said == WORKS:
            self.check(server)
        elif said == IGNORED:
            with pytest.raises(AssertionError):
                self.check(server)
        else:
            with pytest.raises(BadRequestError, match=said):
                self.check(server)


def _stream(server: Server) -> None:
    whole = server.complete(max_tokens=21)
    text, usage = "", None
    for event in server.complete(max_tokens=21, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        text += "".join(choice.text for choice in event.choices)
    assert text == whole.choices[0].text
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens == 21
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def _choices(server: Server) -> None:
    answer = server.complete(n=3, temperature=1.5, max_tokens=30)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.text for choice in answer.choices}) > 1


def _seed(server: Server) -> None:
    texts = {server.complete(seed=5, temperature=1.5, max_tokens=30).choices[0].text for _ in range(3)}
    assert len(texts) == 1


def _penalties(server: Server) -> None:
    plain = server.complete(max_tokens=40).choices[0].text
    for field in ("presence_penalty", "frequency_penalty"):
        assert server.complete(max_tokens=40, **{field: 2.0}).choices[0].text != plain
    assert server.complete(max_tokens=40, extra_body={"repetition_penalty": 2.0}).choices[0].text != plain


def _stop(server: Server) -> None:
    text = server.complete(max_tokens=40, extra_body={"ignore_eos": True}).choices[0].text
    for stop in (text[5:8], text[6:9]):
        found = server.complete(max_tokens=40, stop=[stop, "never"], extra_body={"ignore_eos": True}).choices[0]
        assert found.text == text[: text.index(stop)]
        assert found.finish_reason == "stop"


def _stop_in_thought(server: Server) -> None:
    def thought(**body: Any) -> str:
        message = server.chat(max_tokens=30, **body).choices[0].message
        return (getattr(message, "reasoning_content", None) or "") + (message.content or "")

    whole = thought()
    assert thought(stop=[whole[4:6]])[:6] == whole[:6]


def _chat_scores(server: Server) -> None:
    answer = server.chat(logprobs=True, top_logprobs=2, extra_body={"ignore_eos": True})
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens == 12
    for token in content:
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-3)
        assert len(token.top_logprobs) == 2
        assert token.logprob <= 0


def _streamed_scores(server: Server) -> None:
    whole = server.chat(logprobs=True).choices[0].logprobs.content
    parts: list[Any] = []
    for event in server.chat(logprobs=True, stream=True):
        for choice in event.choices:
            parts += choice.logprobs.content if choice.logprobs else []
    assert [(part.token, part.logprob) for part in parts] == [
        (part.token, pytest.approx(part.logprob, abs=1e-3)) for part in whole
    ]


def _completion_scores(server: Server) -> None:
    answer = server.complete(logprobs=2, extra_body={"ignore_eos": True})
    scores = answer.choices[0].logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == answer.usage.completion_tokens
    assert max(scores.top_logprobs[0].values()) == pytest.approx(scores.token_logprobs[0], abs=1e-3)


def _streamed_completion_scores(server: Server) -> None:
    asked: dict[str, Any] = {"logprobs": 1, "max_tokens": 20, "extra_body": {"ignore_eos": True}}
    whole = server.complete(**asked).choices[0].logprobs
    tokens: list[str] = []
    offsets: list[int] = []
    for event in server.complete(**asked, stream=True):
        for choice in event.choices:
            tokens += choice.logprobs.tokens if choice.logprobs else []
            offsets += choice.logprobs.text_offset if choice.logprobs else []
    assert (tokens, offsets) == (whole.tokens, whole.text_offset)


def _echo(server: Server) -> None:
    plain = server.complete().choices[0].text
    assert server.complete(echo=True).choices[0].text == "3+4=" + plain


def _echo_scored(server: Server) -> None:
    scores = server.complete(echo=True, logprobs=1, max_tokens=1).choices[0].logprobs
    assert scores.token_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])


def _prompts(server: Server) -> None:
    answer = server.complete(["3+4=", "5+4="])
    alone = [server.complete(prompt) for prompt in ("3+4=", "5+4=")]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]


def _prompt_ids(server: Server) -> None:
    assert server.complete([9, 8, 7]).usage.prompt_tokens == 3
    assert [choice.text for choice in server.complete([[9, 8, 7], [9, 8, 7]]).choices] == [server.text([9, 8, 7])] * 2


def _budget(server: Server) -> None:
    turns: list[Any] = [QUESTION]
    answer = server.client.chat.completions.create(
        model=server.model, messages=turns, max_completion_tokens=5, extra_body={"ignore_eos": True}
    )
    assert answer.usage.completion_tokens == 5  # type: ignore[union-attr]


def _roles(server: Server) -> None:
    brief: list[Any] = [{"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be kind."}]
    more = server.chat(*brief, QUESTION).usage.prompt_tokens
    assert more > server.chat(QUESTION).usage.prompt_tokens


def _parts(server: Server) -> None:
    parts = [{"type": "text", "text": QUESTION["content"]}]
    assert server.chat({"role": "user", "content": parts}).choices[0].message == server.chat().choices[0].message


def _name(server: Server) -> None:
    assert server.chat(QUESTION | {"name": "ann"}).usage.completion_tokens > 0


def _sent_back(server: Server) -> None:
    given = server.chat().choices[0].message
    assert server.chat(QUESTION, given.model_dump(), QUESTION).usage.completion_tokens > 0
    nulls: dict[str, Any] = dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "annotations"))
    said = {"role": "assistant", "content": None, "reasoning_content": "15"} | nulls
    without = server.chat(QUESTION, said, QUESTION).usage.prompt_tokens
    assert server.chat(QUESTION, said | {"content": "fifteen"}, QUESTION).usage.prompt_tokens > without


def _tools(server: Server) -> None:
    plain = server.chat().usage.prompt_tokens
    assert server.chat(tools=[WEATHER]).usage.prompt_tokens > plain
    assert server.chat(tools=[WEATHER], tool_choice="none").usage.completion_tokens > 0


def _tool_turns(server: Server) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    told = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    answer = server.chat(QUESTION, called, told, tools=[WEATHER])
    assert answer.usage.prompt_tokens > server.chat(tools=[WEATHER]).usage.prompt_tokens


def _forced_call(server: Server) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    message = server.chat(tools=[WEATHER], tool_choice="required", max_tokens=200, extra_body=off).choices[0].message
    assert message.tool_calls, message
    [call] = message.tool_calls
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments), dict)


def _schema(server: Server) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    answer = server.chat(response_format=shape, max_tokens=200, extra_body=off)
    assert json.loads(answer.choices[0].message.content)["sum"] in (7, 15)


def _thinking(server: Server) -> None:
    off = server.chat(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert not getattr(off.choices[0].message, "reasoning_content", None)
    assert off.usage.prompt_tokens > server.chat().usage.prompt_tokens  # an empty thought


def _effort(server: Server) -> None:
    plain = server.chat().usage.prompt_tokens
    assert server.chat(reasoning_effort="none").usage.prompt_tokens > plain
    assert server.chat(reasoning_effort="low").usage.prompt_tokens == plain


def _nulls(server: Server) -> None:
    names = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "user")
    nulls: dict[str, Any] = dict.fromkeys(names)
    assert server.text(**(nulls | {"temperature": 0})) == server.text()


def _top_k(server: Server) -> None:
    assert server.text(top_k=-1) == server.text()
    assert server.text(top_k=1, temperature=1.5) == server.text()


def _min_p(server: Server) -> None:
    assert server.text(min_p=1.0, temperature=1.5) == server.text()


def _least(server: Server) -> None:
    """With its end as the likeliest token, an answer has the least tokens and then the end, which is counted."""
    for end in server.ends:
        for least, tau in ((1, 0.0), (2, 0.0), (5, 0.5), (6, 1.0)):
            extra = {"min_tokens": least, "custom_params": {"tau": tau}}
            answer = server.complete(logit_bias={str(end): 100}, extra_body=extra)
            assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (least + 1, "stop")


def _past_the_end(server: Server) -> None:
    assert server.complete(max_tokens=77, extra_body={"ignore_eos": True}).usage.completion_tokens == 77


def _bias(server: Server) -> None:
    first = server.complete([9, 8, 7], logprobs=0, max_tokens=1).choices[0].text
    for token in range(30, 90):
        if server.complete([9, 8, 7], max_tokens=1, logit_bias={str(token): 100}).choices[0].text != first:
            return
    raise AssertionError("no token could be forced")


def _tau(server: Server) -> None:
    texts = {server.text(max_tokens=48, custom_params={"tau": tau}) for tau in (0.0, 1.0)}
    assert len(texts) == 2


def _no_effect(server: Server) -> None:
    assert server.complete(user="ann").choices[0].text == server.text()
    assert server.chat(store=False, metadata={"a": "b"}, service_tier="auto").usage.completion_tokens > 0


def _responses(server: Server) -> None:
    answer = server.client.responses.create(model=server.model, input=QUESTION["content"], max_output_tokens=9)
    assert answer.usage is not None
    assert 0 < answer.usage.output_tokens <= 9


def _unknown(server: Server) -> None:
    server.text(made_up=1)
    raise AssertionError("it was taken")


FEATURES = (
    Feature("streams, with usage; odd and even budgets", _stream),
    Feature("`n`", _choices),
    Feature("`seed`", _seed, sglang=IGNORED),
    Feature("`presence_penalty`, `frequency_penalty`, `repetition_penalty`", _penalties),
    Feature("`stop`, also across a pair", _stop),
    Feature("`stop` counts in the answer, not in the thought", _stop_in_thought, sglang=IGNORED),
    Feature("`logprobs`, `top_logprobs` of chats", _chat_scores),
    Feature("`logprobs` of streamed chats", _streamed_scores),
    Feature("`logprobs` of completions", _completion_scores),
    Feature("`logprobs` of streamed completions", _streamed_completion_scores),
    Feature("`echo`", _echo),
    Feature("`echo` with `logprobs`, pair model", _echo_scored, torch="scores no prompts", sglang="does not serve"),
    Feature("several prompts", _prompts),
    Feature("prompts as token ids", _prompt_ids),
    Feature("`max_completion_tokens`", _budget),
    Feature("roles `developer` and several `system`", _roles),
    Feature("content in parts", _parts),
    Feature("`name` of a user", _name),
    Feature("answers sent back, nulls included", _sent_back),
    Feature("`tools`, offered through the chat template", _tools),
    Feature("turns of tools", _tool_turns),
    Feature("forced calls (`tool_choice: required`)", _forced_call),
    Feature("`response_format` with a JSON schema", _schema),
    Feature("`chat_template_kwargs.enable_thinking`", _thinking),
    Feature("`reasoning_effort: none`", _effort),
    Feature("a field that is null counts as absent", _nulls, sglang="valid number"),
    Feature("`top_k`, -1 for all", _top_k),
    Feature("`min_p`", _min_p),
    Feature("`min_tokens`", _least),
    Feature("`ignore_eos`", _past_the_end),
    Feature("`logit_bias`", _bias),
    Feature("`custom_params.tau`", _tau),
    Feature("fields about OpenAI's own service", _no_effect),
    Feature("`/v1/responses`", _responses),
    Feature("an unknown field is refused", _unknown, torch="made_up", sglang=IGNORED),
)


def table() -> str:
    """Return the features as the table of `docs/serving.md`."""

    def cell(said: str) -> str:
        return said if said in (WORKS, IGNORED) else "400"

    rows = [f"| {one.name} | {cell(one.torch)} | {cell(one.sglang)} |" for one in FEATURES]
    return "\n".join(["| feature | torch | SGLang |", "| --- | --- | --- |", *rows])
