"""What pairs cannot do is refused by name, and wrong values are."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipo_core.sglang.hooks.prompts import _unsupported
from tests.sglang_cpu.conftest import Client

UNSUPPORTED: dict[str, dict[str, Any]] = {
    "log-probabilities of the prompt": {"return_logprob": True, "logprob_start_len": 0},
    "token_ids_logprob": {"return_logprob": True, "token_ids_logprob": [5]},
    "repetition_penalty below 0.01": {"sampling_params": {"repetition_penalty": 5e-324}},
    "min_new_tokens is a whole number": {"sampling_params": {"min_new_tokens": 3_000_000_000}},
    "min_new_tokens is 50, and max_new_tokens only 5": {
        "sampling_params": {"min_new_tokens": 50, "max_new_tokens": 5},
    },
    "min_new_tokens and a grammar": {"sampling_params": {"min_new_tokens": 5, "regex": "a+"}},
    "stop_token_ids has 999999": {"sampling_params": {"stop_token_ids": [999999]}},
    "custom_params is an object": {"sampling_params": {"custom_params": [1], "min_new_tokens": 1}},
    "max_new_tokens = 0": {"sampling_params": {"max_new_tokens": 0}},
    "sessions": {"session_params": {"id": "x"}},
    "thinking budgets": {"sampling_params": {"custom_params": {"thinking_budget": 3}}},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_pairs_cannot_do_is_named(client: Client, what: str) -> None:
    assert what in client.refusal("/generate", {"input_ids": [300, 301, 302], **UNSUPPORTED[what]})


@pytest.mark.parametrize(
    ("request_fields", "inputs", "what"),
    [
        ({"return_hidden_states": True}, (None, None), "return_hidden_states"),
        ({"lora_path": "x"}, (None, None), "LoRA adapters"),
        ({"custom_logit_processor": "x"}, (None, None), "custom logit processors"),
        ({"return_sampling_mask": True}, (None, None), "return_sampling_mask"),
        ({"watermark": {}, "sampling_params": {"watermark": True}}, (None, None), "watermarks"),
        ({"sampling_params": {"beam_width": 4}}, (None, None), "beam search"),
        ({}, ([[0.0]], None), "embeddings as input (input_embeds)"),
        ({}, (None, object()), "images, audio or video"),
    ],
)
def test_what_this_server_is_not_set_up_for_is_named_too(
    request_fields: dict[str, Any], inputs: tuple[Any, Any], what: str
) -> None:
    found = _unsupported(SimpleNamespace(**{"sampling_params": {}, **request_fields}), *inputs)
    assert list(found) == [what]


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"tau": "high"}, "custom_params.tau is a number"),
        ({"tau": True}, "custom_params.tau is a number"),
        ({"max_slots": 0}, "custom_params.max_slots is a whole number"),
        ({"max_slots": 1.5}, "custom_params.max_slots is a whole number"),
        ({"record_slots": 1}, "custom_params.record_slots is true or false"),
        ({"record_drafts": "yes"}, "custom_params.record_drafts is true or false"),
    ],
)
def test_a_wrong_value_is_named(client: Client, parameters: dict[str, Any], complaint: str) -> None:
    body = {"input_ids": [300, 301], "sampling_params": {"custom_params": parameters}}
    assert complaint in client.refusal("/generate", body)


def test_the_fields_may_be_null_and_others_are_not_ours(client: Client) -> None:
    given = {"tau": None, "max_slots": None, "record_slots": None, "somebody": "else"}
    assert client.generate([300, 301, 302], max_new_tokens=4, custom_params=given)["output_ids"]


@pytest.mark.parametrize("ids", [[448], [-1], [300, 10**9]])
def test_ids_outside_the_vocabulary(client: Client, ids: list[int]) -> None:
    client.refusal("/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 4}})


def test_a_chat_is_refused_with_openai_s_shape(client: Client) -> None:
    body = {
        "model": "model",
        "messages": [{"role": "user", "content": "1+1"}],
        "custom_params": {"tau": "high"},
    }
    assert "custom_params.tau is a number" in client.refusal("/v1/chat/completions", body)
