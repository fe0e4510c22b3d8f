"""Bodies of the OpenAI interface: what is taken, and that everything else is refused and never crashes."""

import json
import math
import random
from typing import Any

import pytest

from pipo_core.serve.schemas import UNSUPPORTED, BodyError, ChatBody, CompletionBody, error_body, read_body

PARAMETERS = "tools.0.function.parameters"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_chat_is_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = read_body(ChatBody, CHAT | {"messages": [{"role": "user", "content": parts}], "stop": "x", "max_tokens": 3})
    assert (body.messages[0].text, body.stop, body.budget) == ("ab", ["x"], 3)
    assert read_body(ChatBody, CHAT | {"max_completion_tokens": 4, "stop": ["x", "y"]}).budget == 4


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    for nothing in UNSUPPORTED[name]:
        read_body(ChatBody, CHAT | {name: nothing})
    with pytest.raises(BodyError) as caught:
        read_body(ChatBody, CHAT | {name: 2})
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": "1"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": True}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"made_up": 1}, "made_up"),
        ({"messages": []}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"model": "\ud800"}, "model"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "\ud800"}}}]}, PARAMETERS),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": math.nan}}}]}, PARAMETERS),
    ],
)
def test_what_is_not_valid_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_body(ChatBody, CHAT | change)
    assert caught.value.param == param


def test_images_and_empty_stops_are_refused() -> None:
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    for change in ({"messages": [{"role": "user", "content": image}]}, {"stop": ""}, {"stop": ["a"] * 5}):
        with pytest.raises(BodyError):
            read_body(ChatBody, CHAT | change)


def test_any_body_is_read_or_refused() -> None:
    draw = random.Random(5)
    odd: list[Any] = [None, True, -1, 0, 2**70, 1e400, -0.5, "", "\ud800", [], {}, [[]], {"a": {}}, [None], "x" * 999]
    keys = [*CompletionBody.model_fields, *ChatBody.model_fields, *UNSUPPORTED, "\ud800", ""]
    refused = 0
    shapes: list[type[ChatBody | CompletionBody]] = [ChatBody, CompletionBody]
    for _ in range(500):
        body = CHAT | {draw.choice(keys): draw.choice(odd) for _ in range(draw.randint(0, 3))}
        try:
            read_body(draw.choice(shapes), draw.choice([body, body, draw.choice(odd)]))
        except BodyError as error:
            refused += 1
            json.dumps(error_body(error.message, param=error.param), ensure_ascii=False).encode()
    assert 300 < refused < 500


def test_many_scores_are_told_with_ids_alone() -> None:
    asked: dict[str, Any] = {"model": "m", "prompt": [1, 2], "logprobs": 32}
    for change in ({}, {"return_tokens_as_token_ids": True, "stream": True}):
        with pytest.raises(BodyError):
            read_body(CompletionBody, asked | change)
    assert read_body(CompletionBody, asked | {"return_tokens_as_token_ids": True}).top_scores == 32
