"""The live engine: many threads, random arrivals and cancels, an orderly end."""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from pipo_core.engine import CapacityError, Completion, Request
from pipo_core.engine.live import LiveEngine
from pipo_core.errors import PipoError, UsageError
from tests.engine.asking import assert_idle, greedy, last, run


@pytest.mark.parametrize("method", ["regular", "pipo"])
def test_threads_get_the_texts_of_requests_alone(engine: Any, method: str) -> None:
    requests = [greedy(n, length=1 + n * 7 % 33, max_tokens=3 + n % 9) for n in range(24)]
    alone = run(engine(method, batch=1), requests)
    inner = engine(method, batch=4, prefill_chunk=8)
    live = LiveEngine(inner)

    def client(request: Request) -> Completion:
        rng = random.Random(request.id)
        time.sleep(rng.random() * 0.2)
        stream = live.submit(request)
        if int(request.id) % 5 == 0:
            time.sleep(rng.random() * 0.05)
            live.cancel(request.id)
        return last(list(stream))

    with ThreadPoolExecutor(8) as threads:
        completions = {completion.id: completion for completion in threads.map(client, requests)}
    assert live.drain(10)
    live.close()
    assert_idle(inner)
    for name, completion in completions.items():
        if completion.finish_reason == "cancelled":
            assert int(name) % 5 == 0
            assert completion.token_ids == alone[name].token_ids[: len(completion.token_ids)]
        else:
            assert completion.token_ids == alone[name].token_ids
    assert sum(completion.finish_reason != "cancelled" for completion in completions.values()) >= 19


def test_streams_are_read_asynchronously(engine: Any) -> None:
    requests = [greedy(n, max_tokens=6) for n in range(6)]
    alone = run(engine("pipo", batch=1), requests)
    live = LiveEngine(engine("pipo"))

    async def client(request: Request) -> Completion:
        (stream,) = await live.submit_async([request])
        return last([delta async for delta in stream])

    async def clients() -> list[Completion]:
        with pytest.raises(CapacityError):
            await live.submit_async([greedy(98), greedy(99, max_tokens=10**9)])
        return await asyncio.gather(*(client(request) for request in requests))

    for completion in asyncio.run(clients()):
        assert completion.token_ids == alone[completion.id].token_ids
    live.close()


def test_refusals_reach_whoever_submitted(engine: Any) -> None:
    live = LiveEngine(engine("regular"))
    stream = live.submit(greedy(1, max_tokens=3000))
    with pytest.raises(UsageError, match="running or waiting already"):
        live.submit(greedy(1))
    with pytest.raises(UsageError, match="vocabulary"):
        live.submit(greedy(2, prompt_ids=(10**6,)))
    live.cancel("1")
    assert stream.result().finish_reason == "cancelled"
    live.close()


def test_draining_ends_all_accepted_requests_and_takes_no_more(engine: Any) -> None:
    inner = engine("regular", batch=2)
    live = LiveEngine(inner)
    streams = [live.submit(greedy(n, max_tokens=8)) for n in range(6)]
    drained: list[bool] = []
    thread = threading.Thread(target=lambda: drained.append(live.drain(30)))
    thread.start()
    while live.accepting:
        time.sleep(0.001)
    with pytest.raises(PipoError, match="no more requests"):
        live.submit(greedy(9))
    thread.join()
    assert drained == [True]
    assert [last(list(stream)).finish_reason for stream in streams] == ["length"] * 6
    live.close()
    assert_idle(inner)


def test_closing_cancels_what_a_drain_had_no_time_for(engine: Any) -> None:
    inner = engine("regular", batch=2)
    live = LiveEngine(inner)
    streams = [live.submit(greedy(n, max_tokens=20_000)) for n in range(4)]
    assert not live.drain(0.05)
    live.close()
    assert [stream.result().finish_reason for stream in streams] == ["cancelled"] * 4
    assert_idle(inner)
    live.close()  # twice does no harm


def test_nobody_waits_for_an_engine_that_broke_down(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = engine("regular")
    live = LiveEngine(inner)
    stream = live.submit(greedy(1, max_tokens=20_000))
    monkeypatch.setattr(inner, "step", lambda: 1 / 0)
    completion = stream.result()
    assert (completion.finish_reason, completion.error) == ("error", "the engine broke down")
    with pytest.raises(PipoError):
        live.submit(greedy(2))
    live.close()


def test_whoever_stops_waiting_leaves_the_engine_alive(engine: Any) -> None:
    live = LiveEngine(engine("regular", batch=2))
    requests: list[Request] = [greedy(n, max_tokens=300) for n in range(6)]

    async def impatient() -> None:
        for request in requests:
            waiting = asyncio.create_task(live.submit_async([request]))
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        (stream,) = await live.submit_async([greedy(7, max_tokens=5)])
        async for delta in stream:
            if delta.completion is not None:
                assert delta.completion.finish_reason in ("length", "stop")

    asyncio.run(impatient())
    assert live.drain(20)
    live.close()
