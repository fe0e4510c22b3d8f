"""Inspect: chats through OpenAI's interface, and the newer one."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import Served, run_client

TASK = """\
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message


@task
def sums():
    dataset = [Sample(input=f"What is {a}+{b}?", target=str(a + b)) for a, b in ((3, 4), (8, 1), (5, 6))]
    return Task(dataset=dataset, solver=[system_message("Be brief."), generate()], scorer=includes())
"""


@pytest.mark.parametrize("interface", ["chat", "responses"])
def test_a_task_runs_to_its_end(tmp_path: Path, pairs: Served, interface: str) -> None:
    (tmp_path / "task.py").write_text(TASK)
    run_client(
        tmp_path,
        *("inspect_ai", "eval", "task.py", "--model", "openai-api/pipo/m", "--max-tokens", "24", "--display", "plain"),
        *("--temperature", "0", "--log-dir", "logs", "--log-format", "json"),
        *(("-M", "responses_api=true") if interface == "responses" else ()),
        PIPO_API_KEY="none",
        PIPO_BASE_URL=pairs.address,
    )
    [log] = (tmp_path / "logs").glob("*.json")
    found = json.loads(log.read_text())
    assert found["status"] == "success"
    assert len(found["samples"]) == 3
    for sample in found["samples"]:
        assert sample["output"]["usage"]["output_tokens"] <= 24
        assert sample["output"]["choices"][0]["stop_reason"] in ("stop", "max_tokens")
