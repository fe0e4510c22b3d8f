"""Whether what lies in the cache is whole, as far as its own files tell."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipo_core.hub.cache import find_cached, missing_files
from pipo_core.recipes.catalog import find_name


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


def test_a_cache_that_lacks_a_shard_is_as_good_as_none(
    model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another tool left when it was interrupted: only the index tells that a file is missing."""
    cache, commit = tmp_path_factory.mktemp("hub"), "0" * 40
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--something"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    named = find_name("someone/something", "model")
    assert named is not None
    assert find_cached(named) == snapshot
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    assert find_cached(named) is None


def test_empty_data_are_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    assert missing_files(file, is_model=False) == ["content of rows.jsonl"]
    file.write_text("{}")
    assert missing_files(file, is_model=False) == []


def test_a_split_with_a_part_missing_is_not_whole(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet", "x.md"):
        (tmp_path / name).write_text("x")
    assert missing_files(tmp_path, is_model=False) == []
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    assert missing_files(tmp_path, is_model=False) == ["train-00000-of-00002.parquet"]
