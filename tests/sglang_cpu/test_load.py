"""Many users at once, some of whom leave: nothing is lost, nothing leaks, and no answer changes."""

import concurrent.futures
import contextlib
import random
import time

import httpx

from tests.sglang_cpu.conftest import Client, Prompts, Reference

REQUESTS = 200


def test_mixed_requests_with_aborts(client: Client, reference: Reference, prompts: Prompts) -> None:
    expected = {tau: reference.answers(prompts, tau, max_tokens=40, ignore_end=True) for tau in (0.0, 0.4, 1.0)}
    rng = random.Random(2)
    plan = [(rng.randrange(len(prompts)), rng.choice([0.0, 0.4, 1.0]), rng.random()) for _ in range(REQUESTS)]

    retractions: list[int] = []

    def ask(number: int) -> str:
        place, tau, fate = plan[number]
        ids = prompts[place]
        if fate < 0.15:  # a client that is gone before its answer
            body = {"input_ids": list(ids), "sampling_params": {"max_new_tokens": 400, "ignore_eos": True}}
            with contextlib.suppress(httpx.TimeoutException):
                httpx.post(f"{client.url}/generate", json=body, timeout=0.3)
            return "left"
        if fate < 0.3:  # an abort by name
            body = {"input_ids": list(ids), "rid": f"abort-{number}-", "sampling_params": {"max_new_tokens": 400}}
            with concurrent.futures.ThreadPoolExecutor(1) as one:
                waiting = one.submit(client.post, "/generate", {**body, "stream": False})
                time.sleep(0.2)
                client.post("/abort_request", {"rid": f"abort-{number}-"})
                return f"aborted {waiting.result().status_code}"
        answer = client.generate(ids, tau, max_new_tokens=40, ignore_eos=True)
        assert answer["output_ids"] == expected[tau][place].token_ids
        retractions.append(answer["meta_info"]["num_retractions"])
        return "equal"

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        outcomes = list(pool.map(ask, range(REQUESTS)))
    assert outcomes.count("equal") > REQUESTS / 2
    assert len(outcomes) == REQUESTS
    assert sum(retractions) > 10, "memory never ran out, so retraction was not tested"
    _assert_idle(client)


def _assert_idle(client: Client) -> None:
    """Nothing runs, and what is still in memory is only what the prefix cache can give up."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        [state] = httpx.get(f"{client.url}/v1/loads", timeout=60).json()["loads"]
        if state["num_running_reqs"] == state["num_waiting_reqs"] == 0:
            break
        time.sleep(0.5)
    else:
        raise AssertionError("requests are still running")
    assert httpx.post(f"{client.url}/flush_cache", timeout=60).status_code == 200
