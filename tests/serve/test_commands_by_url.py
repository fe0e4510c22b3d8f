"""`pipo chat --url` and `pipo bench --url` with pipo's own server: figures and texts from end to end."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.files import read_json
from pipo_core.serve.service import Service
from tests.serve.running import MODEL


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_chat_is_what_the_server_answers(served: tuple[Service, str], here: Path) -> None:
    url = served[1]
    words = ["chat", "--url", url, "--max-tokens", "12", "--temperature", "0", "--tau", "0"]
    found = CliRunner().invoke(app, words, input="1+2\n")
    assert found.exit_code == 0, found.output
    assert "[length: 12 tokens, " in found.stderr
    body = {"model": MODEL, "messages": [{"role": "user", "content": "1+2"}], "max_tokens": 12, "temperature": 0}
    sampling = {"top_p": 0.95, "top_k": 20, "custom_params": {"tau": 0}}
    message = httpx.post(f"{url}/chat/completions", json=body | sampling).json()["choices"][0]["message"]
    text = message["reasoning_content"] + message["content"]
    assert text.strip()
    assert found.stdout.strip() == text.strip()


def test_a_chat_without_a_budget_may_fill_the_context(served: tuple[Service, str], here: Path) -> None:
    """The server's context is smaller than the usual budget, which it would refuse."""
    found = CliRunner().invoke(app, ["chat", "--url", served[1], "--temperature", "0"], input="1+2\n")
    assert found.exit_code == 0, found.output
    assert "tokens, " in found.stderr


def test_bench_measures_exactly_the_tokens_that_the_server_counts(
    served: tuple[Service, str], pair_model: Path, here: Path
) -> None:
    service, url = served
    before, prompts = service.live.stats().tokens, service.metrics.value("pipo_prompt_tokens_total")
    lengths = ["prompt_tokens=[9,40]", "new_tokens=21", "trials=2", "warmup=1"]
    load = ["concurrency=[3]", "concurrent_prompt_tokens=16", "concurrent_new_tokens=11", "concurrent_trials=2"]
    words = ["bench", "--ckpt", str(pair_model), "--url", url, "--tau", "0", *lengths, *load]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    written = 2 * 3 * 21 + 3 * 3 * 11
    assert service.live.stats().tokens - before == written
    assert service.metrics.value("pipo_prompt_tokens_total") - prompts == 3 * (9 + 40) + 3 * 3 * 16
    [file] = here.glob("outputs/bench-tiny-*/bench/results.json")
    results = read_json(file)
    assert {trial["tokens"] for trial in results["raw"]} == {21}
    assert {trial["tokens"] for trial in results["raw_throughput"]} == {33}
    for trial in results["raw"]:
        assert 0 < trial["ttft_s"] < trial["time_s"]
    for trial in results["raw_throughput"]:
        assert len(trial["ttft_s"]) == len(trial["time_s"]) == 3
        assert max(trial["time_s"]) == trial["seconds"]
        assert all(0 < first < end for first, end in zip(trial["ttft_s"], trial["time_s"], strict=True))
    assert url.removeprefix("http://").removesuffix("/v1") in found.stdout
