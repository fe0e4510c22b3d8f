"""lm-eval: it sends token ids, in batches, and asks for likelihoods by `echo` with `logprobs`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipo_core.chat import load_tokenizer
from pipo_core.model import load_checkpoint
from tests.clients.conftest import Served, run_client

SUMS = [(3, 4), (8, 1), (5, 6), (9, 9), (2, 7)]
COMMON: dict[str, Any] = {"dataset_path": "json", "test_split": "test"}
CHOICE = {
    "task": "sums_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": 0,
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}],
}
WRITE = {
    "task": "sums_write",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"max_gen_toks": 24, "until": ["\n\n\n"], "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}


def evaluated(folder: Path, served: Served, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a task on a server and return its samples, in the order of the questions."""
    rows = [{"question": f"What is {a}+{b}?", "choices": [f" {a + b}", f" {a + b + 1}"]} for a, b in SUMS]
    questions = folder / "sums.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    recipe = {**COMMON, "dataset_kwargs": {"data_files": {"test": str(questions)}}, **task}
    (folder / "task.yaml").write_text(yaml.safe_dump(recipe))
    settings = (
        f"model=m,base_url={served.address}/completions,tokenizer={served.folder},num_concurrent=3,max_length=256"
    )
    run_client(
        folder,
        *("lm_eval", "--model", "local-completions", "--model_args", settings, "--tasks", str(task["task"])),
        *("--include_path", str(folder), "--output_path", "out", "--log_samples"),
    )
    [samples] = (folder / "out").rglob("samples_*.jsonl")
    return sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda row: row["doc_id"])


def test_likelihoods_are_the_models(tmp_path: Path, regular: Served) -> None:
    model, tokenizer = load_checkpoint(regular.folder), load_tokenizer(regular.folder)
    for sample in evaluated(tmp_path, regular, CHOICE):
        for choice, [[told, greedy]] in zip(sample["doc"]["choices"], sample["resps"], strict=True):
            context = tokenizer(sample["doc"]["question"], add_special_tokens=False).input_ids
            ids = tokenizer(sample["doc"]["question"] + choice, add_special_tokens=False).input_ids
            with torch.no_grad():
                logprobs = model.forward_regular(torch.tensor([ids]))[0].log_softmax(dim=-1)
            behind = list(range(len(context), len(ids)))
            expected = sum(float(logprobs[place - 1, ids[place]]) for place in behind)
            assert float(told) == pytest.approx(expected, abs=1e-2)
            assert (greedy == "True") is all(int(logprobs[place - 1].argmax()) == ids[place] for place in behind)


def test_answers_are_written(tmp_path: Path, pairs: Served) -> None:
    samples = evaluated(tmp_path, pairs, WRITE)
    assert len(samples) == len(SUMS)
    assert all(sample["resps"][0][0] for sample in samples)
