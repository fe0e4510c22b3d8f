"""The official client: streams, usage, log-probabilities, thoughts, grammars; thresholds through ``custom_params``."""

import concurrent.futures
import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.sglang_cpu.conftest import Client, Prompts, Reference, assert_equal

QUESTION = "What is 11+6+2-4?"


@pytest.fixture(scope="module")
def openai(client: Client) -> OpenAI:
    return OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0, timeout=300)


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_a_stream_says_what_a_whole_answer_says(openai: OpenAI, tau: float) -> None:
    asked: dict[str, Any] = {
        "model": "model",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 48,
        "extra_body": {"custom_params": {"tau": tau}, "separate_reasoning": False},
    }
    whole = openai.chat.completions.create(**asked)
    text, usage, reason = "", None, None
    for event in openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    assert text == whole.choices[0].message.content
    assert text
    assert reason == whole.choices[0].finish_reason
    assert usage == whole.usage


def test_completions_count_real_tokens(openai: OpenAI) -> None:
    whole = openai.completions.create(
        model="model", prompt=QUESTION, temperature=0, max_tokens=7, extra_body={"custom_params": {"tau": 0}}
    )
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 7
    assert whole.usage.prompt_tokens % 2 == 0 or whole.usage.prompt_tokens > 1


def test_log_probabilities_are_of_each_token(client: Client, prompts: Prompts) -> None:
    for ids in prompts[:4]:
        answer = client.generate(ids, 0.4, max_new_tokens=9, ignore_eos=True, return_logprob=True, top_logprobs_num=2)
        meta = answer["meta_info"]
        chosen, top = meta["output_token_logprobs"], meta["output_top_logprobs"]
        assert [token for _, token, _ in chosen] == answer["output_ids"]
        assert len(chosen) == len(top) == 9
        for (value, token, _), best in zip(chosen, top, strict=True):
            assert best[0][:2] == [pytest.approx(value, abs=1e-4), token], "greedy takes the likeliest token"
            assert best[1][0] <= best[0][0] <= 0


def test_a_grammar_is_kept_to_and_holds_nobody_up(
    client: Client, reference: Reference, prompts: Prompts, ends: frozenset[int]
) -> None:
    """Under a grammar a slot holds one token; other requests of the batch keep their drafts."""
    pattern = r'\{"a":[12],"b":[0-9]{4}\}'
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        bound = [pool.submit(client.generate, ids, 0.0, regex=pattern) for ids in prompts[:4]]
        free = [pool.submit(client.generate, ids, 0.0) for ids in prompts[4:16]]
        for answer in (one.result() for one in bound):
            assert json.loads(answer["text"])["a"] in (1, 2)
            assert answer["meta_info"]["pipo"][0]["kept"] == 0
        assert_equal([one.result() for one in free], reference.answers(prompts[4:16], 0.0), ends)


def test_counters_are_on_the_metrics_page(client: Client, prompts: Prompts) -> None:
    def counts() -> dict[str, float]:
        lines = httpx.get(f"{client.url}/metrics", timeout=60).text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("sglang:pipo_")]
        return {name.partition("{")[0].removesuffix("_total"): float(value) for name, value in pairs}

    before = counts()
    [report] = client.generate(prompts[0], 0.4)["meta_info"]["pipo"]
    after = counts()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown == {
        "sglang:pipo_slots": report["slots"],
        "sglang:pipo_drafts_kept": report["kept"],
        "sglang:pipo_drafts_rejected": report["slots"] - report["kept"],
    }
