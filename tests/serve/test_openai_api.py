"""The server as the official client meets it."""

import json
import random
import time
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from pipo_core.serve.service import Service
from tests.serve.conftest import Start
from tests.serve.running import MODEL

QUESTION: Any = [{"role": "user", "content": "1+2 is?"}]


def wait_until_idle(service: Service) -> None:
    deadline = time.monotonic() + 20
    while service.live.stats().running or service.live.stats().waiting:
        assert time.monotonic() < deadline, "sequences were not freed"
        time.sleep(0.02)


def test_the_model_is_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize("budget", [1, 2, 7, 16])
def test_a_budget_is_of_real_tokens_odd_or_even(client: OpenAI, budget: int) -> None:
    answer = client.completions.create(model=MODEL, prompt="1+2", max_tokens=budget, seed=1)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == budget
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + budget
    assert answer.choices[0].finish_reason == "length"


def test_a_seed_fixes_the_text_and_choices_differ(client: OpenAI) -> None:
    first, second = (
        client.completions.create(model=MODEL, prompt="1+2", max_tokens=24, seed=5, n=2, temperature=1.5)
        for _ in range(2)
    )
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert texts[0] != texts[1]
    assert first.usage is not None
    assert first.usage.completion_tokens <= 48


@pytest.mark.parametrize("choices", [1, 2])
def test_a_streamed_completion_is_the_whole_one(client: OpenAI, choices: int) -> None:
    asked: Any = {"model": MODEL, "prompt": "3*4", "max_tokens": 21, "seed": 3, "n": choices}
    whole = client.completions.create(**asked)
    texts, reasons, usage = [""] * choices, [None] * choices, None
    for event in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_a_streamed_chat_is_the_whole_one_thought_and_answer(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "max_completion_tokens": 40, "seed": 3}
    whole = client.chat.completions.create(**asked).choices[0].message
    parts = {"content": "", "reasoning_content": ""}
    for event in client.chat.completions.create(**asked, stream=True):
        for name in parts:
            parts[name] += getattr(event.choices[0].delta, name, None) or ""
    assert parts["content"] == (whole.content or "")
    assert parts["reasoning_content"] == getattr(whole, "reasoning_content", "")
    assert parts["content"] + parts["reasoning_content"], "nothing was said, so nothing was compared"


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": "3*4", "max_tokens": 60, "seed": 8}
    text = client.completions.create(**asked).choices[0].text
    for begin in range(4, 16):  # at any place within a pair
        stop = text[begin : begin + 3]
        found = client.completions.create(**asked, stop=[stop, "never"]).choices[0]
        assert found.text == text[: text.index(stop)]
        assert found.finish_reason == "stop"


def test_what_is_asked_wrongly_is_told_in_openais_shape(client: OpenAI, served: tuple[Service, str]) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.completions.create(model="other", prompt="1", max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="context") as caught:
        client.completions.create(model=MODEL, prompt="1+2", max_tokens=5000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="audio is not supported"):
        client.chat.completions.create(model=MODEL, messages=QUESTION, audio={"voice": "ash", "format": "wav"})
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model=MODEL, prompt="1", temperature=9)
    address = served[1]
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    for content, status in ((b"{", 400), (b"[" * 70_000, 400), (b" " * (served[0].max_body_bytes + 1), 413)):
        assert httpx.post(f"{address}/completions", content=content, headers=json_type).status_code == status
    assert httpx.post(f"{address}/completions", content=b"{}").status_code == 415
    assert httpx.get(f"{address}/nothing").json()["error"]["message"] == "Not Found"


def test_a_client_that_goes_away_frees_its_sequences(client: OpenAI, served: tuple[Service, str]) -> None:
    service, address = served
    before = service.live.stats().tokens
    stream = client.completions.create(model=MODEL, prompt="1+2", max_tokens=480, n=4, stream=True, temperature=0)
    next(iter(stream))
    stream.close()
    wait_until_idle(service)
    assert service.live.stats().tokens - before < 480, "the answers were written to their ends"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{address}/completions", json={"model": MODEL, "prompt": "1+2", "max_tokens": 480, "n": 8}, timeout=0.05
        )
    wait_until_idle(service)
    assert service.live.stats().free == 8


def test_a_key_is_asked_for(start: Start) -> None:
    _, address = start(api_key="sesame")
    wrong: list[Any] = [{}, {"Authorization": "Bearer sesam"}, {"Authorization": b"Bearer \xff\xfe"}]
    for headers in wrong:
        answer = httpx.get(f"{address}/models", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert [model.id for model in OpenAI(base_url=address, api_key="sesame").models.list()] == [MODEL]
    assert httpx.get(address.replace("/v1", "/health")).json() == {"status": "ok"}


def test_counters_and_health(client: OpenAI, served: tuple[Service, str]) -> None:
    service, address = served
    before = service.metrics.value("pipo_completion_tokens_total")
    usage = client.completions.create(model=MODEL, prompt="1+2", max_tokens=9).usage
    assert usage is not None
    written = before + usage.completion_tokens
    assert service.metrics.value("pipo_completion_tokens_total") == written
    text = httpx.get(address.replace("/v1", "/metrics")).text
    assert f"pipo_completion_tokens_total {written}\n" in text
    assert "pipo_rows_free 8.0\n" in text


def test_while_it_drains_nothing_new_is_taken(start: Start) -> None:
    service, address = start()
    assert service.live.drain(timeout=5)
    assert httpx.get(address.replace("/v1", "/health")).status_code == 503
    answer = httpx.post(f"{address}/completions", json={"model": MODEL, "prompt": "1", "max_tokens": 1})
    assert answer.status_code == 503


def test_no_body_is_a_crash(served: tuple[Service, str]) -> None:
    rng = random.Random(0)
    values = [None, True, -1, 0, 1, 1.5, 1e400, "", "x", "\ud800", "<|im_end|>", [], {}, [[]], ["a"], 10**30, QUESTION]
    names = ["prompt", "messages", "max_tokens", "n", "stop", "stream", "seed", "temperature", "top_k", "x", "model"]
    with httpx.Client(base_url=served[1], headers={"Content-Type": "application/json"}) as client:
        for _ in range(300):
            body = {"model": MODEL, "max_tokens": 2, "prompt": "1", "messages": QUESTION}
            path = rng.choice(["completions", "chat/completions"])
            body.pop("messages" if path == "completions" else "prompt")
            for _ in range(rng.randrange(1, 3)):
                body[rng.choice(names)] = rng.choice(values)
            answer = client.post(f"/{path}", content=json.dumps(body).encode(errors="surrogatepass"))
            assert answer.status_code in (200, 400, 404), (body, answer.text)
