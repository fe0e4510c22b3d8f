"""Processes that would go on from different steps are refused."""

from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from pipo_core.errors import CheckpointError
from pipo_core.files import write_json
from pipo_core.train.worker.resume import refuse_different_starts


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
    torch.multiprocessing.spawn(start, (str(folder), checkpoints, said), nprocs=2)
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
