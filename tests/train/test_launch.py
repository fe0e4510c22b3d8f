"""Command lines, environments and the plan of a training."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.train.launch import command, environment, plan
from pipo_core.train.layout import ADAPTER_RECORD, RESULT
from pipo_core.train.merge import _base_folder, _layout
from pipo_core.train.models import base_name
from pipo_core.train.parent import finished
from pipo_core.train.rows import encode_rows
from tests.tiny import recipe, write_rows

JOB = Path("out/job.json")


def make(rows="train.jsonl", **changes):
    return recipe(Path("model"), Path(rows), **changes)


def test_planning_and_starting_need_no_torch():
    code = "import pipo_core.train.sft, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(make()), check=False).returncode == 0


def test_one_process_needs_no_torchrun():
    assert command(make(), JOB) == [sys.executable, "-m", "pipo_core.train.worker", "out/job.json"]
    variables = environment(make(), {"CUDA_VISIBLE_DEVICES": "3,4", "PYTHONPATH": "/x"})
    assert variables["CUDA_VISIBLE_DEVICES"] == "3"
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["PYTHONPATH"].split(":")[1] == "/x"


def test_processes_of_one_node_find_each_other_alone():
    settings = make(launch={"processes": 8})
    line = " ".join(command(settings, JOB)[1:])
    assert line == (
        "-m torch.distributed.run --nnodes 1 --nproc-per-node 8 --standalone -m pipo_core.train.worker out/job.json"
    )
    variables = environment(settings, {})
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "OMP_NUM_THREADS" not in variables


def test_nodes_meet_at_the_master():
    settings = make(launch={"processes": 4, "nodes": 2, "node_rank": 1, "master": "10.0.0.1:29500"})
    line = " ".join(command(settings, JOB))
    for part in ("--nnodes 2", "--nproc-per-node 4", "--master-addr 10.0.0.1", "--master-port 29500", "--node-rank 1"):
        assert part in line


def _base_folder_of(folder):
    return _base_folder(MergeRecipe(run="m", source="x/y"), folder)


def _finished_in(folder):
    return finished(folder, folder, "print")


def _layout_of(folder):
    return _layout(folder, set())


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_steps": None, "epochs": 2.0, "batch": {"per_device": 4}}, 6),  # 10 rows: 3 batches an epoch
        ({"max_steps": None, "epochs": 2.0, "batch": {"per_device": 2, "accumulation": 2}}, 6),  # 5 passes, 3 steps
        ({"max_steps": None, "epochs": 1.5, "batch": {"per_device": 5}}, 3),
        ({"max_steps": None, "epochs": 1.0, "batch": {"per_device": 1}, "launch": {"processes": 4}}, 2),
    ],
)
def test_the_plan_counts_rows_and_steps(tmp_path, changes, steps):
    rows = write_rows(tmp_path / "train.jsonl", 10)
    planned = plan(make(rows, **changes), tmp_path)
    assert planned["rows"] == 10
    assert planned["steps"] == steps
    assert plan(make(tmp_path / "absent.jsonl", **changes), tmp_path)["rows"] is None


def test_the_plan_counts_tokens_once_they_are_there(tmp_path, base_model):
    rows = write_rows(tmp_path / "train.jsonl", 10)
    settings = recipe(base_model, rows, max_steps=None, epochs=1.0, batch={"per_device": 3})
    before = plan(settings, tmp_path)
    assert (before["tokens"], before["steps"]) == (None, 4)
    lengths = iter([300, *[20] * 9])
    encode_rows(
        rows,
        before["tokenized"],
        encode=lambda row: dict.fromkeys(("input_ids", "labels"), [1] * next(lengths)),
        max_length=settings.data.max_length,
        limit=None,
        progress=lambda done: None,
    )
    after = plan(settings, tmp_path)
    assert (after["tokens"].rows, after["tokens"].dropped, after["tokens"].tokens) == (9, 1, 180)
    assert after["steps"] == 3
    assert after["memory"].positions == 3 * 256  # a tenth of the rows have a PAD in every slot


def test_the_plan_knows_published_sizes_and_says_what_is_missing(tmp_path, monkeypatch):
    settings = recipe(
        Path("qwen3.5-0.8b"), Path("rows.jsonl"), precision="bf16", launch={"deepspeed": "zero2", "processes": 3}
    )
    monkeypatch.setattr("pipo_core.train.launch.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    planned = plan(settings, tmp_path)
    assert planned["memory"].weights > 2 * 752_393_024
    assert planned["kernels"] == {"flash-linear-attention": False, "causal-conv1d": False}
    assert [lack.message.split()[0] for lack in planned["missing"]] == [
        "training",
        "launch.deepspeed",
        "launch.processes:",
    ]
    monkeypatch.setattr("pipo_core.train.launch.importlib.util.find_spec", lambda name: object())
    faster = plan(settings, tmp_path)
    assert all(faster["kernels"].values())
    assert faster["memory"].activations < planned["memory"].activations
    assert plan(recipe(Path("elsewhere/model"), Path("rows.jsonl")), tmp_path)["memory"] is None


@pytest.mark.parametrize("call", [base_name, _base_folder_of, _finished_in, _layout_of])
def test_json_that_is_no_object_is_said_with_its_file(tmp_path, call):
    for name in ("config.json", "adapter_config.json", RESULT, ADAPTER_RECORD):
        (tmp_path / name).write_text("[]")
    if call is _finished_in:
        assert call(tmp_path) is None
        return
    with pytest.raises(MissingInputError, match="does not hold a JSON object"):
        call(tmp_path)


def test_a_base_is_called_by_its_record_its_hub_id_or_its_folder(tmp_path):
    folder = tmp_path / "models--Qwen--Qwen3.5-4B" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert base_name(folder) == "Qwen/Qwen3.5-4B"
    (folder / "config.json").write_text('{"pipo_base": "elsewhere/base"}')
    assert base_name(folder) == "elsewhere/base"
    plain = tmp_path / "my-model"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    assert base_name(plain) == "my-model"
