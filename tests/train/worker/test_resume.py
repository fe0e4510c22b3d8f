"""Processes that would go on from different steps are refused, and weights that were not restored."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from pipo_core.errors import CheckpointError, MachineError
from pipo_core.files import write_json
from pipo_core.model import load_checkpoint
from pipo_core.train.worker.resume import refuse_different_starts, refuse_lone_processes, refuse_unrestored


def start(rank: int, folder: str, checkpoints: list[str | None], said: Any) -> None:
    """One of two processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        refuse_different_starts(checkpoints[rank])
        said.put("agreed")
    except CheckpointError as error:
        said.put(error.message)
    torch.distributed.destroy_process_group()


def outcomes(folder: Path, checkpoints: list[str | None]) -> set[str]:
    """Return what both processes say."""
    folder.mkdir()
    context = torch.multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    spawn(start, (str(folder), checkpoints, said), nprocs=2)
    return {said.get(), said.get()}


def test_all_processes_go_on_from_one_step_or_none_does(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-6"
    checkpoint.mkdir()
    write_json(checkpoint / "trainer_state.json", {"global_step": 6, "max_steps": 9})
    assert outcomes(tmp_path / "same", [str(checkpoint), str(checkpoint)]) == {"agreed"}
    [message] = outcomes(tmp_path / "other", [str(checkpoint), None])
    assert "different steps (0, 6)" in message


def test_one_process_agrees_with_itself() -> None:
    refuse_different_starts(None)


def test_a_weight_that_was_not_restored_is_named(base_model: Path, tmp_path: Path) -> None:
    model = load_checkpoint(base_model)
    refuse_unrestored(model, str(base_model))
    refuse_unrestored(model, None)
    saved = load_file(base_model / "model.safetensors")
    saved["mtp.fc.weight"][3, 5] += 1
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: mtp\.fc\.weight was not restored"):
        refuse_unrestored(model, str(tmp_path))
    saved["mtp.other.weight"] = saved.pop("mtp.fc.weight")
    save_file(saved, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no weight mtp\.other\.weight"):
        refuse_unrestored(model, str(tmp_path))


def test_processes_that_train_each_for_itself_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_lone_processes(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MachineError, match="2 processes were started, but 1 train together"):
        refuse_lone_processes(1)
