"""What operators need: ids, a log, readiness, bounds in bytes, pages of named origins, the interface's description."""

import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from pipo_core.engine.live import LiveEngine
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.serve.service import Service
from pipo_core.serve.tracing import LOG
from tests.serve.conftest import Start
from tests.serve.running import MODEL
from tests.serve.test_clients import ASKED, post
from tests.serve.test_openai_api import wait_until_idle


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level(logging.INFO, LOG.name)
    return caplog


def line_of(lines: pytest.LogCaptureFixture, request_id: str) -> str:
    """Wait for the line of a request: it is written when its answer has been sent."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [line for line in lines.messages if f"id={request_id}" in line]
        if found:
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no line of {request_id} in {lines.messages}")


def test_a_request_has_an_id_and_a_line(served: tuple[Service, str], lines: pytest.LogCaptureFixture) -> None:
    answer = post(served[1], "completions", headers={"X-Request-Id": "job-7/a"}, prompt="1+2")
    assert answer.headers["x-request-id"] == "job-7/a"
    usage = answer.json()["usage"]
    line = line_of(lines, "job-7/a")
    assert line.startswith("POST /v1/completions 200 ")
    assert f" prompt={usage['prompt_tokens']} tokens={usage['completion_tokens']} ttft=" in line
    own = post(served[1], "nothing")
    assert line_of(lines, own.headers["x-request-id"]).startswith("POST /v1/nothing 404 ")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é".encode(), b"\x1b[31m"])
def test_an_id_that_could_garble_the_log_is_replaced(served: tuple[Service, str], given: Any) -> None:
    answer = httpx.get(f"{served[1]}/models", headers={"X-Request-Id": given})
    assert len(answer.headers["x-request-id"]) == 32


def test_a_streams_line_has_its_figures_and_who_left_is_told(
    served: tuple[Service, str], lines: pytest.LogCaptureFixture
) -> None:
    body = {"model": MODEL, "prompt": "1+2", "max_tokens": 400, "stream": True, "temperature": 0, "ignore_eos": True}
    with httpx.stream("POST", f"{served[1]}/completions", json=body, headers={"X-Request-Id": "left"}) as answer:
        next(answer.iter_lines())
    wait_until_idle(served[0])
    assert 0 < int(line_of(lines, "left").partition("tokens=")[2].split()[0]) < 400


def test_a_field_without_effect_is_logged_once(start: Start, lines: pytest.LogCaptureFixture) -> None:
    _, address = start()
    for _ in range(2):
        assert post(address, "completions", prompt="1", user="ann", metadata={"a": 1}).status_code == 200
    assert [line for line in lines.messages if "no effect" in line] == [
        "the field metadata is taken and has no effect",
        "the field user is taken and has no effect",
    ]


def test_ready_means_that_one_more_would_be_taken(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service, address = start()
    page = address.replace("/v1", "/ready")
    assert httpx.get(page).status_code == 200
    monkeypatch.setattr(LiveEngine, "pending", property(lambda _: service.max_requests))
    assert httpx.get(page).status_code == 503
    refused = post(address, "completions", prompt="1")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert httpx.get(address.replace("/v1", "/health")).status_code == 200
    monkeypatch.undo()
    assert service.live.drain(timeout=5)
    assert httpx.get(page).json() == {"ready": False}


def test_what_is_held_is_bounded_in_bytes(start: Start) -> None:
    service, address = start(max_held_bytes=3000)
    assert post(address, "completions", prompt="1" * 100).status_code == 200
    assert post(address, "completions", prompt="1" * 4000).status_code == 429
    deadline = time.monotonic() + 5
    while service.held_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.held_bytes == 0, "answered and refused bodies are held no longer"


def test_a_page_of_another_origin_is_refused_unless_named(start: Start) -> None:
    local = frozenset({"127.0.0.1", "localhost"})
    _, address = start(hosts=local, origins=frozenset({"https://chat.example"}))
    for origin, status, shared in (
        ("https://chat.example", 200, True),
        ("http://localhost:3000", 200, False),
        ("https://evil.example", 403, False),
        ("https://chat.example.evil", 403, False),
        ("null", 403, False),
    ):
        answer = post(address, "completions", headers={"Origin": origin}, prompt="1")
        assert answer.status_code == status, origin
        assert (answer.headers.get("access-control-allow-origin") == origin) is shared
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "content-type,authorization"
    assert httpx.options(f"{address}/completions", headers=asked).status_code == 200
    assert (
        httpx.options(f"{address}/completions", headers=asked | {"Origin": "https://evil.example"}).status_code == 400
    )


def test_the_interface_describes_itself(served: tuple[Service, str]) -> None:
    root = served[1].removesuffix("/v1")
    found = httpx.get(f"{root}/openapi.json").json()
    body = found["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schemas = found["components"]["schemas"]
    assert {"messages", "top_logprobs", "tools"} <= schemas[body["$ref"].rpartition("/")[2]]["properties"].keys()
    for name in (part.rpartition("/")[2] for part in json.dumps(found).split('"') if part.startswith("#/")):
        assert name in schemas, f"{name} is referred to and not there"
    assert "openapi.json" in httpx.get(f"{root}/docs").text


def test_histograms_count_every_answer(start: Start) -> None:
    service, address = start()
    for budget in (1, 5):
        post(address, "completions", prompt="1", max_tokens=budget, ignore_eos=True)
    counted = service.metrics.value
    assert counted("pipo_request_seconds_count") == 2
    assert counted("pipo_time_per_token_seconds_count") == 1, "one token has no time between tokens"
    assert counted("pipo_request_seconds_bucket", le="+Inf") == 2


# ---------------------------------------------------------------- clients that close their half


@contextmanager
def asked(address: str, body: dict[str, Any], *, version: str = "1.1") -> Iterator[socket.socket]:
    """Send a request by hand."""
    host, _, port = address.removeprefix("http://").removesuffix("/v1").partition(":")
    raw = json.dumps({"model": MODEL, "max_tokens": 6, "temperature": 0} | body).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_sends_no_more_gets_its_answer(served: tuple[Service, str], version: str, stream: bool) -> None:
    expected = post(served[1], "completions", prompt="1+2", temperature=0, max_tokens=60).json()["choices"][0]["text"]
    with asked(served[1], {"prompt": "1+2", "max_tokens": 60, "stream": stream}, version=version) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = rest_of(connection)  # until the server closes
    if version == "1.0":
        assert b" 100 " not in answer, "that protocol has no interim responses"
    assert b" 200 OK\r\n" in answer
    bodies = [json.loads(part) for part in re.findall(rb'(\{"id".*\})', answer)]
    assert "".join(choice["text"] for body in bodies for choice in body["choices"]) == expected


def test_the_standard_library_reads_over_the_interim_response(served: tuple[Service, str]) -> None:
    host, _, port = served[1].removeprefix("http://").removesuffix("/v1").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    body = json.dumps({"model": MODEL, "prompt": "1+2", "max_tokens": 200, "ignore_eos": True})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    connection.sock.shutdown(socket.SHUT_WR)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["usage"]["completion_tokens"]) == (200, 200)


def test_streams_that_wait_end_with_their_clients(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their headers are sent and nothing else yet, and a client that closes in order sends no reset."""
    monkeypatch.setattr("pipo_core.serve.answers._SILENT_SECONDS", 0.1)
    service, address = start()
    engine = service.live._engine
    assert isinstance(engine, TorchEngine)
    monkeypatch.setattr(engine, "step", lambda: threading.Event().wait(0.02) or engine._hand_out())
    for _ in range(5):
        with asked(address, {"prompt": "1+2", "max_tokens": 20, "stream": True}) as connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            connection.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + 20
    while service.live.pending:
        assert time.monotonic() < deadline, "they keep their places"
        time.sleep(0.05)


def test_a_client_that_leaves_is_logged_as_such(served: tuple[Service, str], lines: pytest.LogCaptureFixture) -> None:
    service, address = served
    host, _, port = address.removeprefix("http://").removesuffix("/v1").partition(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}X-Request-Id: cut\r\nContent-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.2)
    assert " 499 " in line_of(lines, "cut")
    body = {"model": MODEL, "prompt": "1", "max_tokens": 500, "n": 8, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/completions", json=body, headers={"X-Request-Id": "whole"}, timeout=0.05)
    assert " 499 " in line_of(lines, "whole")
    wait_until_idle(service)


def test_more_answers_than_are_ever_taken_are_no_matter_of_waiting(start: Start) -> None:
    _, address = start(max_requests=4)
    answer = post(address, "completions", prompt="1", n=5)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


def test_a_grammar_that_takes_too_long_keeps_nobody_waiting(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.serve.compiling._SECONDS", 0.3)
    _, address = start()
    go_on = threading.Event()
    monkeypatch.setattr("pipo_core.serve.openai_api._grammar", lambda *_, **__: go_on.wait(20))
    form = {"type": "json_object"}
    refused = post(address, "chat/completions", messages=ASKED, response_format=form)
    assert refused.status_code == 400
    assert "not compiled within" in refused.json()["error"]["message"]
    assert post(address, "chat/completions", messages=ASKED, response_format=form).status_code == 429
    assert post(address, "chat/completions", messages=ASKED).status_code == 200
    go_on.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_has_left_is_told_from_one_that_waits(served: tuple[Service, str], stream: bool) -> None:
    service, address = served
    before = service.live.stats().tokens
    with asked(address, {"prompt": "1+2", "max_tokens": 500, "n": 8, "ignore_eos": True, "stream": stream}):
        deadline = time.monotonic() + 10
        while not service.live.stats().running and time.monotonic() < deadline:
            time.sleep(0.001)
        assert service.live.stats().running
    wait_until_idle(service)
    assert service.live.stats().tokens - before < 8 * 500, "the answers were written to their ends"


def test_what_a_busy_reader_missed_comes_at_once(served: tuple[Service, str]) -> None:
    """A client that reads slowly gets the text in fewer events, and all of it."""
    body: dict[str, Any] = {"prompt": "1+2", "max_tokens": 480, "n": 4, "ignore_eos": True, "stream": True}
    whole = post(served[1], "completions", **(body | {"temperature": 0, "stream": False})).json()["choices"]
    with asked(served[1], body) as connection:
        threading.Event().wait(1)
        connection.shutdown(socket.SHUT_WR)
        events = [line for line in rest_of(connection).split(b"\r\n") if line.startswith(b"data: {")]
    texts = [""] * 4
    for event in events:
        for choice in json.loads(event.removeprefix(b"data: "))["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole]


def test_chats_are_asked_as_before(served: tuple[Service, str]) -> None:
    answer = post(served[1], "chat/completions", messages=ASKED, reasoning_effort="high")
    assert answer.status_code == 200
