"""Whether what lies in the cache is whole, as far as its own files tell."""

import json
from pathlib import Path

import pytest

from pipo_core.hub.cache import missing_files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of two shards in a folder."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in shards:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_whole_model_lacks_nothing(model: Path) -> None:
    assert missing_files(model, is_model=True) == []


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_what_an_interrupted_download_left_out_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert missing_files(model, is_model=True) == [name]


def test_weights_must_be_there_and_an_index_readable(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text("{")
    assert missing_files(model, is_model=True) == ["model.safetensors.index.json (not readable)"]
    for file in model.glob("*.safetensors"):
        file.unlink()
    assert missing_files(model, is_model=True) == ["weights (*.safetensors)"]


def test_empty_data_are_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    assert missing_files(file, is_model=False) == ["content of rows.jsonl"]
    file.write_text("{}")
    assert missing_files(file, is_model=False) == []
