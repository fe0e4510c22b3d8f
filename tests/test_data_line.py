"""From problems to a training, by commands: shards, builds, a card, rows of other tools; a rollout that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipo_core.files import read_jsonl

SMALL = ("problems.count=48", "samples=2", "budget={tokens: 64}")
DEADLINE = 300


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipo_cli.main", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )


def pipo(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command that succeeds and return its summary."""
    process = start(folder, *words, "--json")
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err[-3000:]
    summary: dict[str, Any] = json.loads(out)["summary"]
    return summary


def without_times(path: Path) -> list[dict[str, Any]]:
    """The lines of rollouts without what differs from run to run, in an order of their own."""
    rows = [
        {key: value for key, value in row.items() if key not in ("ttft_s", "time_s", "session", "at_s")}
        for row in read_jsonl(path)
    ]
    return sorted(rows, key=lambda row: (row["problem"], row["sample"], "text" in row))


@pytest.mark.slow
def test_two_shards_become_a_training_set_and_train_a_step(tmp_path: Path) -> None:
    for index in range(2):
        pipo(tmp_path, "rollout", "tiny/rollout.yaml", *SMALL, f"shard={{index: {index}, count: 2}}")
    pipo(tmp_path, "rollout", "tiny/rollout.yaml", *SMALL, "run=whole")
    shards = ",".join(f"outputs/tiny-answers/rollout-{index}-of-2" for index in range(2))
    options = (
        *("--pick", "shortest", "--minimum-solved", "0.5", "--validation-share", "0.2"),
        *("--max-tokens", "60", "--max-repetition", "0.3"),
    )
    parts = pipo(tmp_path, "build", "sft", f"rollouts=[{shards}]", "run=parts", *options)
    whole = pipo(tmp_path, "build", "sft", "rollouts=outputs/whole/rollout", "run=whole", *options)
    assert parts == whole
    assert parts["train_rows"] > 10
    assert parts["validation_rows"] > 0
    made, again = (tmp_path / "outputs" / name / "build" for name in ("parts", "whole"))
    for name in ("train.jsonl", "validation.jsonl"):
        assert (made / name).read_bytes() == (again / name).read_bytes()
    assert "shard 1 of 2" in (made / "card.md").read_text()

    questions = pipo(tmp_path, "build", "opd", f"rollouts=[{shards}]", "run=questions", "hash_range=[0, 1]")
    rows = read_jsonl(tmp_path / "outputs" / "questions" / "build" / "train.jsonl")
    assert len(rows) == questions["train_rows"]
    assert {tuple(turn["role"] for turn in row["messages"]) for row in rows} == {("user",)}

    # The same rows as other tools write them give the same losses.
    with (tmp_path / "foreign.jsonl").open("w") as file:
        for index, row in enumerate(read_jsonl(made / "train.jsonl")):
            asked, answer = (turn["content"] for turn in row["messages"])
            turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
            forms = [{"conversations": turns}, {"query": asked, "response": answer}]
            file.write(json.dumps(forms[index % 2]) + "\n")
    losses = []
    for name, data in (("ours", str(made)), ("foreign", "foreign.jsonl")):
        words = ("max_steps=2", "log_every_steps=1", "batch.per_device=4", f"run={name}", f"data.train={data}")
        summary = pipo(tmp_path, "train", "tiny/sft.yaml", *words)
        assert summary["steps"] == 2
        losses.append([row["loss"] for row in read_jsonl(tmp_path / "outputs" / name / "train" / "metrics.jsonl")])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_rollout_that_is_killed_goes_on_to_the_same_answers(tmp_path: Path) -> None:
    # Four at once, so that many steps lie between the first answer and the last.
    words = ("rollout", "tiny/rollout.yaml", "problems.count=60", "samples=2", "shard.count=2", "engine.batch=4")
    pipo(tmp_path, *words, "run=whole")
    process = start(tmp_path, *words, "run=killed")
    file = tmp_path / "outputs" / "killed" / "rollout-0-of-2" / "rollouts.jsonl"
    deadline = time.monotonic() + DEADLINE
    while not (file.is_file() and file.read_bytes().count(b"\n") >= 8):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = file.read_bytes()
    whole = tmp_path / "outputs" / "whole" / "rollout-0-of-2" / "rollouts.jsonl"
    assert 8 <= before.count(b"\n") < whole.read_bytes().count(b"\n")
    summary = pipo(tmp_path, *words, "run=killed")
    assert summary["answers"] * 2 == len(read_jsonl(file)) == len(read_jsonl(whole))
    assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert without_times(file) == without_times(whole)
    for name in ("whole", "killed"):
        other = tmp_path / "outputs" / name / "rollout-1-of-2"
        pipo(tmp_path, *words, f"run={name}", "shard.index=1")
        pipo(
            tmp_path, "build", "tiny/build.yaml", f"rollouts=[{other.parent}/rollout-0-of-2, {other}]", f"run=b-{name}"
        )
    made = [(tmp_path / "outputs" / f"b-{name}" / "build" / "train.jsonl").read_bytes() for name in ("whole", "killed")]
    assert made[0] == made[1] != b""
