"""Fingerprints of checkpoints that profiles hold: every part counts, and large files are read in a few places only."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipo_core.errors import CheckpointError
from pipo_core.model.sampled_print import sampled_print
from pipo_core.model.weight_files import byte_ranges, locate_weights
from tests.tiny import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("printed") / "pair", layout="pipo")


def test_one_value_of_any_part_is_another_print(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    parts = {name.partition(".")[0] for name in weights}
    assert {"compressor", "confidence_head", "mtp", "model"} <= parts
    prints = {sampled_print(model)}
    for name, weight in weights.items():
        changed = weight.clone()
        changed.view(-1)[-1] += 2**-14  # less than bf16 holds
        save_file({**weights, name: changed}, tmp_path / "model.safetensors")
        prints.add(sampled_print(tmp_path))
    assert len(prints) == 1 + len(weights)


def test_the_number_of_files_changes_nothing(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    where = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(weights)}
    for file in set(where.values()):
        save_file({name: weights[name] for name in weights if where[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert sampled_print(tmp_path) == sampled_print(model)


def test_rows_all_over_a_large_weight_count(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    large = torch.zeros(24 * 100, 1000, dtype=torch.bfloat16)
    found = set()
    for first, last in ((0, 0), (0, 105), (1150, 1255), (2295, 2400)):  # of 105 rows in a line, one counts
        changed = large.clone()
        changed[first:last] = 1
        save_file({"mtp.fc.weight": changed, "scale": torch.tensor(2.0)}, file)
        found.add(sampled_print(tmp_path))
    assert len(found) == 4


def test_values_are_where_their_ranges_say(model: Path) -> None:
    file = model / "model.safetensors"
    content, weights = file.read_bytes(), load_file(file)
    assert byte_ranges(file).keys() == {source.name for source in locate_weights(model).values()}
    for name, (begin, size) in byte_ranges(file).items():
        assert content[begin : begin + size] == weights[name].numpy().tobytes()


def test_a_damaged_file_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        sampled_print(tmp_path)
