"""Checks of checkpoint folders."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipo_core.errors import CheckpointError, MissingInputError
from pipo_core.files.checkpoints import base_name
from pipo_core.merge import _base_folder, _layout
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.layout import ADAPTER_RECORD, RESULT
from pipo_core.train.models import check_gate
from pipo_core.train.supervisor import finished


def test_a_base_is_called_by_its_record_its_hub_id_or_its_folder(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("method", ["gate", "full"])
def test_a_gate_alone_is_trained_of_pair_models_only(tmp_path: Path, method: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    values = {"model": str(tmp_path), "data": {"train": "train.jsonl"}, "max_steps": 1, "tuning": {"method": method}}
    recipe = TrainRecipe.model_validate(values)
    if method == "gate":
        with pytest.raises(CheckpointError, match="is not a pair model, so its gate alone cannot be trained"):
            check_gate(recipe)
        (tmp_path / "config.json").write_text('{"text_config": {"compressor_type": "mlp"}}')
    check_gate(recipe)


def _base_folder_of(folder: Path) -> object:
    return _base_folder(MergeRecipe(run="m", source="x/y"), folder)


def _finished_in(folder: Path) -> object:
    return finished(folder, folder, "print")


def _layout_of(folder: Path) -> object:
    return _layout(folder, set())


@pytest.mark.parametrize("call", [base_name, _base_folder_of, _finished_in, _layout_of])
def test_json_that_is_not_an_object_is_refused_by_its_file(tmp_path: Path, call: Callable[[Path], object]) -> None:
    for name in ("config.json", "adapter_config.json", RESULT, ADAPTER_RECORD):
        (tmp_path / name).write_text("[]")
    if call is _finished_in:
        assert call(tmp_path) is None
        return
    with pytest.raises(MissingInputError, match="does not hold a JSON object"):
        call(tmp_path)
