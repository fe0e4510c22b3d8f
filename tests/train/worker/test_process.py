"""Errors of the training process."""

import shutil
from pathlib import Path

import pytest

from pipo_core.errors import CheckpointError, MachineError
from pipo_core.train.worker.process import _explained
from tests.tiny import recipe
from tests.train.trainings import (
    train_here,
)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory")]
)
def test_too_little_memory_without_a_gpu_is_explained(error: Exception) -> None:
    found = _explained(error)
    assert isinstance(found, MachineError)
    assert "batch.per_device" in (found.hint or "")


def test_a_damaged_model_is_named(base_model: Path, rows: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base_model, broken)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        train_here(recipe(broken, rows), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
