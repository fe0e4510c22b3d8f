"""Command lines and environments of the training processes."""

import sys
from pathlib import Path

import pytest

from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.launch import command, environment
from tests.tiny import recipe
from tests.train.trainings import (
    distill_recipe,
)

JOB = Path("out/job.json")


def make(rows: Path | str = "train.jsonl", **changes: object) -> TrainRecipe:
    return recipe(Path("model"), Path(rows), **changes)


def test_one_process_needs_no_torchrun() -> None:
    assert command(make(), JOB) == [sys.executable, "-m", "pipo_core.train.worker", "out/job.json"]
    variables = environment(make(), {"CUDA_VISIBLE_DEVICES": "3,4", "PYTHONPATH": "/x"})
    assert variables["CUDA_VISIBLE_DEVICES"] == "3"
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["PYTHONPATH"].split(":")[1] == "/x"


def test_processes_of_one_node_find_each_other_alone() -> None:
    settings = make(launch={"processes": 8})
    line = " ".join(command(settings, JOB)[1:])
    assert line == (
        "-m torch.distributed.run --nnodes 1 --nproc-per-node 8 --standalone -m pipo_core.train.worker out/job.json"
    )
    variables = environment(settings, {})
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "OMP_NUM_THREADS" not in variables


def test_nodes_meet_at_the_master() -> None:
    settings = make(launch={"processes": 4, "nodes": 2, "node_rank": 1, "master": "10.0.0.1:29500"})
    line = " ".join(command(settings, JOB))
    for part in ("--nnodes 2", "--nproc-per-node 4", "--master-addr 10.0.0.1", "--master-port 29500", "--node-rank 1"):
        assert part in line


@pytest.mark.parametrize(("flags", "own"), [([], False), (["--base-gpu-id", "1"], True), (["--base-gpu-id=1"], True)])
def test_a_server_on_gpus_of_its_own_sees_all_gpus(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, flags: list[str], *, own: bool
) -> None:
    engine = {"kind": "sglang", "flags": flags}
    settings = distill_recipe(student, teacher, rows, rollout={"slots": 6, "engine": engine})
    assert ("CUDA_VISIBLE_DEVICES" not in environment(settings, {"CUDA_VISIBLE_DEVICES": "2,3"})) == own
    assert ("torch.distributed.run" in command(settings, tmp_path)) == own


def test_a_teacher_on_a_gpu_of_its_own_starts_under_torchrun_and_sees_all_gpus(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    near = distill_recipe(student, teacher, rows)
    far = distill_recipe(student, teacher, rows, teacher_device="cuda:1")
    assert environment(near, {"CUDA_VISIBLE_DEVICES": "2,3"})["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in environment(far, {"CUDA_VISIBLE_DEVICES": "2,3"})
    assert "torch.distributed.run" not in command(near, tmp_path)
    assert "torch.distributed.run" in command(far, tmp_path)
