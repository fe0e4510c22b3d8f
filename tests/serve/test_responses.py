"""OpenAI's newer interface, as its official client meets it."""

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.features import CALL, TOOL_TEMPLATE, WEATHER
from tests.serve.conftest import Start
from tests.serve.running import MODEL
from tests.serve.scripted import scripted_service

QUESTION = "1+2 is?"
TOOL: dict[str, Any] = {"type": "function", **WEATHER["function"]}


@pytest.fixture(scope="module")
def client(start: Start) -> OpenAI:
    service, address = start()
    service.tokenizer.chat_template = TOOL_TEMPLATE
    return OpenAI(base_url=address, api_key="unused", max_retries=0)


def test_an_answer_is_the_chats(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        max_completion_tokens=30,
        temperature=0,
    )
    answer = client.responses.create(
        model=MODEL, instructions="Be brief.", input=QUESTION, max_output_tokens=30, temperature=0
    )
    said = chat.choices[0].message
    [thought] = [item for item in answer.output if item.type == "reasoning"]
    assert thought.content is not None
    assert thought.content[0].text == said.reasoning_content  # type: ignore[attr-defined]
    assert answer.output_text == (said.content or "")
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert chat.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )


def test_a_stream_tells_of_every_item_in_order(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": QUESTION, "max_output_tokens": 40, "temperature": 0}
    whole = client.responses.create(**asked)
    events: list[Any] = list(client.responses.create(**asked, stream=True))
    final = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert events[-1].type == "response.incomplete"
    told = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert told
    assert told == next(event.text for event in events if event.type == "response.reasoning_text.done")
    contents = [[item.type, getattr(item, "content", None)] for item in (*whole.output, *final.output)]
    assert contents[: len(whole.output)] == contents[len(whole.output) :]


def test_an_answer_may_be_sent_back(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=20)
    items: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        *(item.model_dump() for item in first.output),
        {"role": "user", "content": QUESTION},
    ]
    second = client.responses.create(model=MODEL, input=items, max_output_tokens=5)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_client_that_keeps_no_state_may_ask_for_encrypted_thoughts(client: OpenAI) -> None:
    """Inspect and OpenAI's agents do so in every request; thoughts are sent as they are."""
    answer = client.responses.create(
        model=MODEL,
        input=QUESTION,
        max_output_tokens=20,
        include=["reasoning.encrypted_content"],
        store=False,
        reasoning={"summary": "auto"},
    )
    assert answer.output[0].type == "reasoning"


def test_calls_and_what_they_returned_are_read(client: OpenAI) -> None:
    function = CALL["function"]
    items: list[Any] = [
        {"role": "user", "content": QUESTION},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": function["name"], "arguments": function["arguments"]},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ]
    answer = client.responses.create(model=MODEL, input=items, tools=[TOOL], max_output_tokens=5)  # type: ignore[list-item]
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": [{"type": "image", "url": "x"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input"),
        ({"input": []}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "nothing"}}}}, "text.format"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "auto"}, "truncation"),
        ({"made_up": 1}, "made_up"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"input": [{"type": "reasoning", "content": 5}, {"role": "user", "content": "x"}]}, "input.0"),
        ({"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": None}]}]}, "input.0"),
        ({"top_k": 10**400}, "top_k"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: OpenAI, change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model=MODEL, input=QUESTION, extra_body=change)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


CALL_TEXT = (
    "I look.\n</think>\n\nOne moment.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n"
    "</function>\n</tool_call>"
)


def test_a_call_is_an_item_of_its_own(start: Start) -> None:
    service, address = start()
    scripted_service(service, CALL_TEXT)
    client = OpenAI(base_url=address, api_key="unused", max_retries=0)
    asked: dict[str, Any] = {"model": MODEL, "input": QUESTION, "tools": [TOOL]}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    answers: list[Any] = [whole, streamed]
    for answer in answers:
        thought, message, call = answer.output
        assert (thought.type, message.type, call.type) == ("reasoning", "message", "function_call")
        assert answer.output_text == "One moment."
        assert call.arguments == '{"city": "Rome"}'
        assert answer.status == "completed"


def test_a_call_of_a_chat_ends_it_by_its_own_reason(start: Start) -> None:
    service, address = start()
    scripted_service(service, CALL_TEXT)
    client = OpenAI(base_url=address, api_key="unused", max_retries=0)
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "tools": [WEATHER]}
    choice: Any = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "One moment."
    [call] = choice.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')
    parts = [event.choices[0] for event in client.chat.completions.create(**asked, stream=True)]
    assert parts[-1].finish_reason == "tool_calls"
    assert "".join(part.delta.content or "" for part in parts) == "One moment."
    [called] = [one for part in parts for one in part.delta.tool_calls or []]
    assert (called.index, called.function.arguments) == (0, '{"city": "Rome"}')
    plain = client.chat.completions.create(**(asked | {"tools": []})).choices[0]
    assert "<tool_call>" in (plain.message.content or ""), "nothing was offered, so nothing was called"
