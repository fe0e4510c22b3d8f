"""`pipo serve`, `pipo eval`, `pipo bench` and `pipo chat` with SGLang, as a user gives them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.recipes.locate import bundled_model
from tests.sglang_cpu.conftest import CPU_FLAGS, CPU_VARIABLES, Client

PIPO = [sys.executable, "-m", "pipo_cli.main"]
POOLS = ("--max-mamba-cache-size", "64", "--max-total-tokens", "4096")
FLAGS = [*CPU_FLAGS, *POOLS, "--mamba-radix-cache-strategy", "no_buffer", "--disable-overlap-schedule"]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {**CPU_VARIABLES, "THE_KEY": "a-key"}.items():
        monkeypatch.setenv(name, value)


def pipo(*words: str) -> tuple[int, str]:
    """Return the exit code and what was said; in this process, which has imported everything already."""
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def evaluated(ckpt: Path, method: str, engine: dict[str, Any], run: str) -> list[dict[str, Any]]:
    """Return the answers that `pipo eval` got, greedily, in the order of the problems."""
    recipe = {
        "kind": "eval",
        "run": run,
        "problems": {"count": 12},
        "samples": 1,
        "sampling": {"temperature": 0, "presence_penalty": 0.5},
        "budget": {"slots": 16},
        "arms": [{"name": "x", "method": method, "ckpt": str(ckpt), **({"tau": 0.4} if method == "pipo" else {})}],
        "engine": engine,
    }
    file = Path(f"{run}.yaml")
    file.write_text(json.dumps(recipe))
    code, said = pipo("eval", str(file))
    assert code == 0, said
    answers = Path("outputs") / run / "eval" / "answers"
    rows = [json.loads(line) for file in answers.glob("*/*.jsonl") for line in file.read_text().splitlines()]
    return sorted((row for row in rows if "text" in row), key=lambda row: row["id"])


COMPARED = ("id", "text", "finish_reason", "prompt_tokens", "tokens", "written", "slots", "drafts", "kept")
TORCH = {"kind": "torch", "device": "cpu", "precision": "fp32", "threads": 1}


def test_eval_starts_a_server_and_gets_the_torch_engine_s_answers(ckpt: Path) -> None:
    expected = evaluated(ckpt, "pipo", TORCH, "torch")
    found = evaluated(ckpt, "pipo", {"kind": "sglang", "flags": FLAGS}, "sglang")
    assert len(expected) == 12
    assert [[row[name] for name in COMPARED] for row in found] == [[row[name] for name in COMPARED] for row in expected]
    assert [row["slot_token_counts"] for row in found] == [row["slot_token_counts"] for row in expected]
    assert any(row["kept"] for row in found)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a checkpoint that is no pair model, with a key; the block's end checks how the server ends."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "key").write_text("a-key\n")
    words = [*PIPO, "serve", "--engine", "sglang", "--ckpt", str(bundled_model("tiny-student")), "--port", "0"]
    words += ["--name", "plain", "--api-key-file", "key", "--", *FLAGS]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(words, cwd=folder, env={**os.environ, **CPU_VARIABLES}, stderr=log)
    deadline = time.monotonic() + 400
    while not (found := re.search(r"^address: (\S+)/v1$", (folder / "log").read_text(), re.MULTILINE)):
        assert server.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.5)
    yield found[1]
    server.send_signal(signal.SIGTERM)
    assert server.wait(90) == 0
    assert (folder / "log").read_text().endswith("stopped\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{found[1]}/health")


def test_another_model_is_served_as_without_the_plugin(served: str) -> None:
    """Its answers are the torch engine's, by URL and with a key."""
    plain = bundled_model("tiny-student")
    remote = {"kind": "remote", "urls": [served], "api_key_env": "THE_KEY"}
    found = evaluated(plain, "regular", remote, "remote")
    expected = evaluated(plain, "regular", TORCH, "torch")
    assert [[row[name] for name in COMPARED] for row in found] == [[row[name] for name in COMPARED] for row in expected]


def test_a_key_is_asked_for(served: str) -> None:
    assert httpx.get(f"{served}/v1/models").status_code == 401
    headers = {"Authorization": "Bearer a-key"}
    assert httpx.get(f"{served}/v1/models", headers=headers).json()["data"][0]["id"] == "plain"


def test_bench_measures_a_server_of_pairs(client: Client, ckpt: Path) -> None:
    """Each answer has the tokens that were asked for, in slots of which the server says how many drafts they kept."""
    arms = [
        {"name": "torch", "method": "pipo", "ckpt": str(ckpt), "tau": 0.0},
        {
            **{"name": "served", "method": "pipo", "ckpt": str(ckpt), "tau": [0.0, 1.0]},
            "engine": {"kind": "remote", "urls": [client.url]},
        },
    ]
    recipe = {
        **{"kind": "bench", "arms": arms, "baseline": "torch", "engine": TORCH},
        **{"prompt_tokens": [33, 64], "new_tokens": 15, "trials": 2, "warmup": 1},
        **{"concurrency": [4], "concurrent_prompt_tokens": 20, "concurrent_new_tokens": 12, "concurrent_trials": 1},
    }
    Path("bench.yaml").write_text(json.dumps(recipe))
    code, said = pipo("bench", "bench.yaml")
    assert code == 0, said
    results = json.loads(Path("outputs/bench/bench/results.json").read_text())
    slots = {"torch@0": 8, "served@0": 8, "served@1": 15}  # of 15 tokens; the last slot's draft is beyond the budget
    assert {(trial["label"], trial["tokens"]) for trial in results["raw"]} == {(label, 15) for label in slots}
    assert all(len(trial["slot_token_counts"]) == slots[trial["label"]] for trial in results["raw"])
    assert {trial["tokens"] for trial in results["raw_throughput"]} == {48}
    for length in results["lengths"]:
        assert [arm["engine"] for arm in length["arms"]] == ["torch", *[client.url.removeprefix("http://")] * 2]
        assert [arm["tokens_per_slot"] for arm in length["arms"]] == [15 / 8, 15 / 8, 1.0]
        assert length["arms"][1]["drafts_kept"] == 7 / 8
        assert all(arm["speedup"]["tpot_s"]["median"] > 0 for arm in length["arms"])
    assert "87.5" in said


def test_chat_by_url_needs_no_checkpoint(served: str) -> None:
    words = ["chat", "--url", served, "--api-key-env", "THE_KEY", "--temperature", "0", "--max-tokens", "9"]
    result = CliRunner().invoke(app, words, input="What is 1+2?\n")
    assert result.exit_code == 0, result.output
    assert "[length: 9 tokens, " in result.stderr
    assert result.stdout.strip()


def test_the_wrong_key_is_told_at_once(served: str) -> None:
    engine = f"engine={{kind: remote, urls: [{served}]}}"
    words = ["eval", "--suite", "tiny", "--ckpt", str(bundled_model("tiny-student")), "problems.count=2", engine]
    code, said = pipo(*words)
    assert code == 2
    assert "refuses the API key" in said
