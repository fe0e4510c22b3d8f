"""`pipo serve` as a process: how it starts, and how it stops under load."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from tests.processes import served_address
from tools.soak import soak


@contextmanager
def server(model: Path, *more: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start `pipo serve` and yield the process and its address."""
    words = [
        "serve",
        "--ckpt",
        str(model),
        "--port",
        "0",
        "--name",
        "tiny",
        "--tau",
        "0.5",
        "--max-length",
        "512",
        "--log-level",  # nobody reads the pipe that it goes to
        "warning",
        *more,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipo_cli.main", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, served_address(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_sigterm_under_load_ends_every_accepted_request_and_exits_0(pair_model: Path) -> None:
    with server(pair_model) as (process, address), ThreadPoolExecutor(16) as pool:
        body = {"model": "tiny", "prompt": "1+2", "max_tokens": 400, "stream": True}
        accepted = []

        def ask() -> str:
            text = ""
            with httpx.stream("POST", f"{address}/completions", json=body, timeout=60) as answer:
                accepted.append(answer.status_code)
                for part in answer.iter_text():
                    text += part
            return text

        answers = [pool.submit(ask) for _ in range(16)]
        while len(accepted) < 16:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert accepted == [200] * 16
        for answer in answers:
            text = answer.result(timeout=60)
            assert text.rstrip().endswith("data: [DONE]")
            reasons = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in text.split("\n\n")[:-2]]
            assert reasons[-1] in ("length", "stop")
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_answers_that_take_longer_than_the_drain_are_cut_off_and_told(pair_model: Path) -> None:
    with server(pair_model, "--drain-seconds", "0") as (process, address), ThreadPoolExecutor(4) as pool:
        body = {"model": "tiny", "prompt": "1+2", "max_tokens": 500, "n": 16, "temperature": 0, "top_k": 1}
        answers = [pool.submit(httpx.post, f"{address}/completions", json=body, timeout=60) for _ in range(4)]
        metrics = address.replace("/v1", "/metrics")
        while "pipo_requests_running 0.0\n" in httpx.get(metrics).text:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        statuses = [answer.result().status_code for answer in answers]
        assert process.wait(timeout=30) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert 503 in statuses
    assert set(statuses) <= {200, 503}
    assert re.search(r"\d+ answers were cut off after 0 s", said), said
    assert "Traceback" not in said


@pytest.mark.slow
def test_many_clients_some_of_whom_leave(pair_model: Path) -> None:
    with server(pair_model) as (process, address):
        found = soak(address, "tiny", process.pid, clients=8, seconds=3, seed=0)
    assert found["errors"] == []
    assert found["rows_leaked"] == 0
    assert found["answers"] > 8
    assert found["left"] > 0


def test_what_cannot_be_served_is_one_line(pair_model: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    words = ["serve", "--ckpt", str(pair_model), "--dry-run"]
    assert run(app, words).exit_code == 0
    for more, code, about in (
        (["--host", "::"], 2, "no API key"),
        (["--device", "cuda:7"], 4, "cuda:7"),
        (["--api-key-file", str(tmp_path / "absent")], 3, "absent"),
        (["--method", "regular", "--tau", "0.5"], 2, "--tau"),
    ):
        found = run(app, [*words[:-1], "--port", "0", *more])
        assert found.exit_code == code, found.output
        assert about in found.output
    with server(pair_model) as (_, address):
        port = address.rsplit(":", 1)[1].partition("/")[0]
        found = run(app, [*words[:-1], "--port", port])
        assert found.exit_code == 4
        assert f"port {port} of 127.0.0.1 is in use" in found.output


def test_a_chat_takes_lines_from_a_pipe(pair_model: Path) -> None:
    words = ["chat", "--ckpt", str(pair_model), "--tau", "0", "--max-tokens", "9", "--show-drafts"]
    found = CliRunner().invoke(app, words, input="1+2\n/reset\n/what\n3+4\n/quit\nnever\n")
    assert found.exit_code == 0, found.output
    assert found.output.count(" tokens in ") == 2
    assert found.output.count("/reset starts a new conversation") == 2, "at the beginning and after /what"
