"""Connections: none keeps the others out, and the end is orderly."""

import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from pipo_core.serve import connections
from pipo_core.serve.connections import connection_limit
from tests.serve.conftest import Start
from tests.serve.running import MODEL

WHOLE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("http://").removesuffix("/v1").rpartition(":")
    return host, int(port)


@contextmanager
def dialled(address: str, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    """Yield connections that have said something and then wait."""
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(place(address), timeout=20))
            opened[-1].sendall(said)
        yield opened
    finally:
        for one in opened:
            one.close()


def health(address: str) -> int:
    return httpx.get(address.replace("/v1", "/health"), timeout=20).status_code


@pytest.mark.parametrize(
    "said", [b"", HALF, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["silent", "half", "kept"]
)
def test_idle_connections_make_room(start: Start, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(connections, "connection_limit", lambda: 4)
    _, address = start()
    with dialled(address, 12, said):
        for _ in range(5):
            assert health(address) == 200


def test_busy_connections_are_not_closed_and_others_are_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "connection_limit", lambda: 2)
    service, address = start()
    body = {"model": MODEL, "prompt": "1+2", "max_tokens": 480, "stream": True, "temperature": 0}
    with (
        httpx.stream("POST", f"{address}/completions", json=body) as one,
        httpx.stream("POST", f"{address}/completions", json=body) as other,
        suppress(httpx.TransportError),
    ):
        refused = httpx.get(address.replace("/v1", "/health"))
        running = service.live.stats().running
        assert refused.status_code == (503 if running == 2 else 200)
        assert [answer.read().endswith(b"data: [DONE]\n\n") for answer in (one, other)] == [True, True]


def test_headers_have_a_deadline(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEADER_SECONDS", 0.3)
    _, address = start()
    with dialled(address, 1, HALF) as (one,):
        for _ in range(100):
            try:
                one.sendall(b"X-Slow: 1\r\n")
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("a client that never ends its headers was kept")
        assert health(address) == 200


def test_a_body_has_a_deadline(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.serve.arrivals._BODY_SECONDS", 0.3)
    _, address = start()
    with dialled(address, 1, HALF + b"Content-Length: 99\r\n\r\n{") as (one,):
        assert one.recv(4096).startswith(b"HTTP/1.1 408")


def test_descriptors_run_out_and_come_back(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    _, address = start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        lowest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 12, hard))
    try:
        with suppress(OSError), dialled(address, 30, HALF):
            pytest.fail("the limit was not reached")
        time.sleep(0.1)
        assert health(address) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Traceback" not in capfd.readouterr().err


def test_the_limit_of_descriptors_is_raised_and_respected() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        limit = connection_limit()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised > 256 or hard <= 256
        assert 0 < limit < raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_beyond_the_queue_clients_are_told_to_come_back(start: Start) -> None:
    service, address = start(max_requests=6)
    body = {"model": MODEL, "prompt": "1+2", "max_tokens": 200, "temperature": 0}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{address}/completions", json=body, timeout=60), range(24)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    texts = {answer.json()["choices"][0]["text"] for answer in answers if answer.status_code == 200}
    assert len(texts) == 1
    turned_away = next(answer for answer in answers if answer.status_code == 429)
    assert turned_away.headers["retry-after"] == "1"
    assert turned_away.json()["error"]["type"] == "rate_limit_error"
    assert service.live.pending == 0
    assert httpx.post(f"{address}/completions", json=body | {"n": 7}).status_code == 400


def test_what_the_drain_cuts_off_is_told(start: Start) -> None:
    service, address = start()
    body: dict[str, Any] = {"model": MODEL, "prompt": "1+2", "max_tokens": 480, "n": 8, "temperature": 0}
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(httpx.post, f"{address}/completions", json=body, timeout=60)
        streamed = pool.submit(httpx.post, f"{address}/completions", json=body | {"stream": True}, timeout=60)
        while service.live.pending < 16:
            time.sleep(0.005)
        assert service.live.cancel_all() == 16
        assert whole.result().status_code == 503
        assert "shut down" in whole.result().json()["error"]["message"]
        assert "shut down" in streamed.result().text
