"""What clients of neighbouring projects send, each in its own spelling."""

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from pipo_core.data.tiny.tokenizer import CHAT_TEMPLATE
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, open_engine
from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.recipes.common import RemoteSettings, TorchSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.serve.schemas import Defaults
from pipo_core.serve.service import Service
from tests.features import TOOL_TEMPLATE
from tests.serve.conftest import Start
from tests.serve.running import MODEL

ASKED = [{"role": "user", "content": "What is 3 plus 4?"}]
SAID = {"role": "assistant", "reasoning_content": "3+4=7.\n", "content": "\\boxed{7}"}
NULLABLE = [
    *("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "n"),
    *("stop", "stream", "stream_options", "user", "max_tokens"),
]
NULLABLE_IN_CHATS = ["max_completion_tokens", "chat_template_kwargs"]


def post(address: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return httpx.post(f"{address}/{path}", json={"model": MODEL, "max_tokens": 6} | body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    "messages",
    [
        [*ASKED, SAID, *ASKED],
        [*ASKED, SAID | dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "annotations")), *ASKED],
        [*ASKED, SAID | {"tool_calls": [], "annotations": []}, *ASKED],
        [*ASKED, {"role": "assistant", "content": None}, *ASKED],
        [ASKED[0] | {"name": "ann"}],
        [ASKED[0] | {"type": "text"}],
        [{"role": "developer", "content": "Be brief."}, *ASKED],
        [ASKED[0] | {"content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "3 plus 4?"}]}],
    ],
)
def test_messages_as_clients_spell_them(served: tuple[Service, str], messages: list[Any]) -> None:
    answer = post(served[1], "chat/completions", messages=messages)
    assert answer.status_code == 200, answer.text


def test_an_answer_is_taken_back_as_it_was_given(served: tuple[Service, str]) -> None:
    given = post(served[1], "chat/completions", messages=ASKED).json()["choices"][0]["message"]
    answer = post(served[1], "chat/completions", messages=[*ASKED, given, *ASKED])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_null_is_as_good_as_absent(served: tuple[Service, str], path: str) -> None:
    asked = {"prompt": "1+2"} if path == "completions" else {"messages": ASKED}
    whole = post(served[1], path, **asked, seed=1).json()["choices"]
    names = NULLABLE + NULLABLE_IN_CHATS * (path == "chat/completions")
    nulls: dict[str, Any] = dict.fromkeys(names)
    assert post(served[1], path, **(asked | nulls | {"max_tokens": 6, "seed": 1})).json()["choices"] == whole


def test_several_prompts_are_answered_in_their_order(served: tuple[Service, str]) -> None:
    prompts = ["3+4=", "5+4=", "12*3="]
    both = post(served[1], "completions", prompt=prompts, n=2, temperature=0).json()
    alone = [post(served[1], "completions", prompt=one, temperature=0).json() for one in prompts]
    assert [choice["index"] for choice in both["choices"]] == list(range(6))
    assert [choice["text"] for choice in both["choices"][::2]] == [one["choices"][0]["text"] for one in alone]
    assert both["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in alone)


def test_a_thought_may_be_left_out(start: Start) -> None:
    service, address = start()
    off = {"enable_thinking": False}
    refused = post(address, "chat/completions", messages=ASKED, chat_template_kwargs=off)
    assert "always opens a thought" in refused.json()["error"]["message"]
    service.tokenizer.chat_template = CHAT_TEMPLATE
    message = post(address, "chat/completions", messages=ASKED, chat_template_kwargs=off).json()["choices"][0]
    assert "reasoning_content" not in message["message"]
    refused = post(address, "chat/completions", messages=ASKED, chat_template_kwargs={"enable_magic": True})
    assert refused.json()["error"]["param"] == "chat_template_kwargs.enable_magic"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": [""]}, "stop.0", "at least 1"),
        ({"stop": 5}, "stop", "list"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty", "0.01"),
        ({"top_k": -2}, "top_k", "-1"),
        ({"top_k": 10**400}, "top_k", "1000000000"),
        ({"min_tokens": 2**63}, "min_tokens", "1000000000"),
        ({"min_tokens": 2, "response_format": {"type": "json_object"}}, "min_tokens", "a grammar says itself"),
        ({"max_tokens": None, "max_completion_tokens": 10**6}, "max_completion_tokens", "max_completion_tokens up to"),
        ({"stream_options": {}}, "stream_options", "needs stream"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "a token of logit_bias is outside the vocabulary"),
        ({"messages": [{"role": "user", "content": "x"}] * 513}, "messages", "513 turns"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "system"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": "hi"}, "messages", "list"),
    ],
)
def test_a_refusal_names_the_field_in_plain_words(
    served: tuple[Service, str], change: dict[str, Any], param: str, words: str
) -> None:
    error = post(served[1], "chat/completions", **({"messages": ASKED} | change))
    assert error.status_code == 400
    assert error.json()["error"]["param"] == param
    assert words in error.json()["error"]["message"]
    assert "cmpl-" not in error.json()["error"]["message"], "the engine's name of a request is not the client's"
    assert "[" not in error.json()["error"]["message"]


def test_the_scheme_of_a_key_has_no_case(start: Start) -> None:
    _, address = start(api_key="sesame")
    for scheme, status in (("bearer", 200), ("BEARER", 200), ("Basic", 401), ("sesame", 401)):
        assert httpx.get(f"{address}/models", headers={"Authorization": f"{scheme} sesame"}).status_code == status


def test_a_web_page_cannot_ask(start: Start) -> None:
    _, address = start(hosts=frozenset({"127.0.0.1", "localhost", "::1"}))
    port = address.rsplit(":", 1)[1].partition("/")[0]
    for host, status in (
        *((name, 200) for name in (f"127.0.0.1:{port}", f"LocalHost:{port}", f"[::1]:{port}", "localhost")),
        *((name, 403) for name in (f"evil.example:{port}", "", "localhost.evil.example", f"[::2]:{port}")),
    ):
        answer = post(address, "completions", headers={"Host": host}, prompt="1")
        assert answer.status_code == status, host
    # What a page may send without asking first (a "simple" request) is no JSON.
    plain = httpx.post(f"{address}/completions", content=b'{"model": "tiny"}', headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415


def test_a_name_with_a_slash_is_found(start: Start) -> None:
    service, address = start()
    service.model = "org/tiny-pair"
    assert httpx.get(f"{address}/models/org/tiny-pair").json()["id"] == "org/tiny-pair"


def test_sampling_that_is_not_said_is_the_checkpoints(start: Start) -> None:
    _, greedy = start(defaults=Defaults(temperature=0))
    texts = {post(greedy, "completions", prompt="1+2", seed=n).json()["choices"][0]["text"] for n in range(4)}
    assert len(texts) == 1
    said = {
        post(greedy, "completions", prompt="1+2", seed=n, temperature=2).json()["choices"][0]["text"] for n in range(4)
    }
    assert len(said) > 1


def test_token_ids_are_a_prompt_like_its_text(served: tuple[Service, str]) -> None:
    ids = served[0].tokenizer("3+4=", add_special_tokens=False).input_ids
    text = post(served[1], "completions", prompt="3+4=", temperature=0).json()
    alone = post(served[1], "completions", prompt=ids, temperature=0).json()
    both = post(served[1], "completions", prompt=[ids, ids[:2]], temperature=0).json()
    assert alone["choices"] == text["choices"]
    assert alone["usage"] == text["usage"]
    assert both["choices"][0]["text"] == text["choices"][0]["text"]


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ([], "prompt: "),
        ("", "prompt: a prompt is a text or a list of token ids, and not empty"),
        ([""], "prompt: a prompt is a text"),
        ([[1], []], "prompt: a prompt is a text"),
        ([1, "2"], "prompt: a prompt is a text"),
        ([1, 2.0], "prompt: a prompt is a text"),
        ([True], "prompt: a prompt is a text"),
        ([-1], "prompt: a prompt is a text"),
        ([10**9], "outside the vocabulary"),
        ([[1]] * 17, "prompt: "),
    ],
)
def test_what_is_no_prompt_is_named(served: tuple[Service, str], prompt: Any, complaint: str) -> None:
    answer = post(served[1], "completions", prompt=prompt)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]["message"]


def test_an_answer_may_go_on_behind_its_end(start: Start) -> None:
    service, address = start()
    service.live._engine._ends = frozenset(range(264))  # type: ignore[attr-defined] # a torch engine
    assert post(address, "completions", prompt="1", max_tokens=5).json()["usage"]["completion_tokens"] == 1
    answer = post(address, "completions", prompt="1", max_tokens=5, ignore_eos=True).json()
    assert answer["usage"]["completion_tokens"] == 5


def test_a_request_may_name_its_threshold(client: OpenAI) -> None:
    def texts(tau: float | None) -> str:
        extra = {"custom_params": {"tau": tau}}
        answer = client.completions.create(model=MODEL, prompt="1+2", max_tokens=40, temperature=0, extra_body=extra)
        return answer.choices[0].text

    assert texts(None) == texts(0.5), "the server's own"
    assert texts(0.0) != texts(1.0)
    for wrong in (2, "high"):
        with pytest.raises(BadRequestError, match=r"custom_params\.tau"):
            texts(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match=r"custom_params\.other"):
        client.completions.create(model=MODEL, prompt="1", extra_body={"custom_params": {"other": 1}})


def test_an_engine_by_url_gets_what_the_server_s_own_engine_writes(
    served: tuple[Service, str], pair_model: Path
) -> None:
    """Chats and token ids, whole and streamed; what the interface does not report stays unknown."""
    settings = RemoteSettings(kind="remote", urls=[served[1]])
    engine = open_engine(pair_model, Decoding("pipo", 0.3), settings)
    sampling = SamplingParams(temperature=0)
    chat = Request("chat", messages=({"role": "user", "content": "1+2"},), sampling=sampling, max_tokens=30)
    ids = Request("ids", tuple(engine.tokenizer("3+4=").input_ids), sampling, max_tokens=30)
    whole = {one.id: one for one in engine.generate([chat, ids])}
    streamed = {delta.id: delta.completion for delta in engine.stream([chat, ids]) if delta.completion is not None}
    here = TorchOpener().open(pair_model, Decoding("pipo", 0.3), TorchSettings(device="cpu", precision="fp32"))
    for own in here.generate([chat, ids]):
        found, streaming = whole[own.id], streamed[own.id]
        assert found.text.removeprefix("<think>\n") == own.text
        assert (found.tokens, found.finish_reason, found.prompt_tokens) == (
            own.tokens,
            own.finish_reason,
            own.prompt_tokens,
        )
        assert streaming is not None
        assert (streaming.text, streaming.tokens) == (found.text, found.tokens)
        assert found.slots is None
    engine.close()


def test_a_prompt_that_cannot_fit_is_not_tokenized(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service, address = start()
    monkeypatch.setattr("pipo_core.serve.openai_api.encode_prompt", lambda *_, **__: pytest.fail("it was tokenized"))
    long = "7" * (service.max_prompt_bytes + 1)
    answer = post(address, "chat/completions", messages=[{"role": "user", "content": long}])
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("depth", [100, 450])
@pytest.mark.parametrize("where", ["tools", "tool_choice", "response_format", "arguments"])
def test_what_is_nested_deeply_is_answered_or_refused(start: Start, where: str, depth: int) -> None:
    service, address = start()
    service.tokenizer.chat_template = TOOL_TEMPLATE
    schema: Any = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "deep", "parameters": schema}}
    call = {"id": "1", "type": "function", "function": {"name": "deep", "arguments": json.dumps(schema)}}
    bodies: dict[str, dict[str, Any]] = {
        "tools": {"tools": [tool]},
        "tool_choice": {"tools": [tool], "tool_choice": "required"},
        "response_format": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        },
        "arguments": {"messages": [*ASKED, {"role": "assistant", "tool_calls": [call]}, *ASKED]},
    }
    answer = post(address, "chat/completions", **({"messages": ASKED} | bodies[where]))
    assert answer.status_code in (200, 400), answer.text
    assert post(address, "chat/completions", messages=ASKED).status_code == 200


def test_counters_know_those_who_left(start: Start) -> None:
    service, address = start()
    rng = random.Random(0)
    for _ in range(4):
        body = {"model": MODEL, "prompt": "1+2", "max_tokens": 400, "stream": True, "temperature": 0, "n": 2}
        with httpx.stream("POST", f"{address}/completions", json=body) as answer:
            lines = answer.iter_lines()
            for _ in range(rng.randrange(1, 9)):
                next(lines)
    while service.live.stats().running or service.metrics.value("pipo_requests_total", outcome="cancelled") < 8:
        httpx.get(address.replace("/v1", "/health"))
    text = httpx.get(address.replace("/v1", "/metrics")).text
    assert 'pipo_requests_total{outcome="cancelled"} 8.0' in text
    prompt = post(address, "completions", prompt="1+2").json()["usage"]["prompt_tokens"]
    counted = service.metrics.value
    assert counted("pipo_prompt_tokens_total") == 5 * prompt  # once for each body, not once for each choice
    assert counted("pipo_time_to_first_token_seconds_count") == counted("pipo_request_seconds_count") == 9
    assert 0 < counted("pipo_time_to_first_token_seconds_sum") <= counted("pipo_request_seconds_sum")
