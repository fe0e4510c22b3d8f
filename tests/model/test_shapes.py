"""The published sizes: as many weights as published, and random models that are whole."""

import math
from pathlib import Path

import pytest
import torch

from pipo_core.errors import UsageError
from pipo_core.model import shapes, writing
from pipo_core.model.checkpoint import load_checkpoint, load_config, random_weights
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.shapes import MADE_SHAPES, SHAPES, Shape, random_shape_model, shape_config, write_shape_checkpoint
from pipo_core.recipes.catalog import CATALOG

# Numbers in the safetensors files of Qwen/Qwen3.5-*: text model with its LM head, MTP head, and all of it with the
# vision tower of the last column, which transformers' Qwen3_5VisionModel has at the published vision_config.
PUBLISHED = {
    "qwen3.5-0.8b": (752_393_024, 20_452_864, 873_438_784, 100_592_896),
    "qwen3.5-2b": (1_881_825_088, 60_828_160, 2_274_069_824, 331_416_576),
    "qwen3.5-4b": (4_205_751_296, 120_599_552, 4_659_865_088, 333_514_240),
    "qwen3.5-9b": (8_953_803_264, 243_290_624, 9_653_104_368, 456_010_480),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_as_many_weights_as_the_published_checkpoint(name: str) -> None:
    model = random_shape_model(name, device="meta")
    counts = dict.fromkeys(("model", "lm_head", "mtp", "compressor", "confidence_head"), 0)
    for key, weight in model.named_parameters():
        counts[key.partition(".")[0]] += weight.numel()
    text, mtp, total, vision = PUBLISHED[name]
    assert (counts["model"] + counts["lm_head"], counts["mtp"]) == (text, mtp)
    assert text + mtp + vision == total
    hidden = model.config.hidden_size
    assert counts["confidence_head"] == 2 * hidden**2 + 3 * hidden
    assert name in CATALOG


def test_shapes_of_ours_are_none_of_the_published() -> None:
    assert SHAPES.keys() == PUBLISHED.keys()
    assert not MADE_SHAPES.keys() & {*SHAPES, *CATALOG}
    for name in MADE_SHAPES:
        assert shape_config(name).num_hidden_layers == MADE_SHAPES[name].layers


@pytest.mark.parametrize(("name", "ratio"), [("qwen3.5-4b", 9 / 16), ("qwen3.5-0.8b", 7 / 12)])
def test_pairs_cache_the_published_share_of_keys_and_values(name: str, ratio: float) -> None:
    attention = shape_config(name).layer_types.count("full_attention")
    assert (attention + 1) / 2 / attention == ratio


def test_an_unknown_shape_is_guessed() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'qwen3\.5-4b'"):
        shape_config("qwen3.5-4bb")


def test_random_weights_have_the_spread_of_transformers_own(reference_folder: Path) -> None:
    config = load_config(reference_folder)
    torch.manual_seed(0)
    ours, theirs = random_weights(config), Qwen3_5ForCausalPIPO(config)
    for (name, one), (other, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        if name.startswith("compressor"):
            continue
        if name.endswith("A_log"):
            assert ((one > math.log(0.0099)) & (one < math.log(16.1))).all()
        elif not two.std() > 0:
            assert torch.equal(one, two), name
        else:
            assert one.std().item() == pytest.approx(two.std().item(), rel=5 / one.numel() ** 0.5), name
            assert abs(one.mean() - two.mean()) < 5 * two.std() * (2 / one.numel()) ** 0.5, name
    assert torch.equal(ours.get_parameter("compressor.mlp.0.weight"), torch.eye(2 * config.hidden_size))
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, theirs.get_buffer(name)), name


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A shape of 17 million weights, most of them the embedding."""
    monkeypatch.setitem(shapes.SHAPES, "small", Shape(64, 64, 4, heads=1, kv_heads=1, value_heads=16, tied=True))
    monkeypatch.setattr(writing, "_SHARD_SIZE", "4MB")
    return "small"


def test_a_shape_on_disk_is_the_model_of_its_seed(small: str, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    folder = write_shape_checkpoint(small, tmp_path / "model", seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert (folder / "chat_template.jinja").is_file()
    loaded, same = load_checkpoint(folder, dtype=torch.bfloat16), random_shape_model(small, seed=5)
    assert loaded.fresh_parts == ("compressor", "confidence_head")
    for name, weight in same.named_parameters():
        if not name.startswith(loaded.fresh_parts):
            assert torch.equal(weight, loaded.get_parameter(name)), name
    assert not same.training
    other = random_shape_model(small, seed=6)
    assert not torch.equal(same.lm_head.weight, other.lm_head.weight)
    with torch.no_grad():
        assert same.forward_pairs(torch.randint(0, 248_320, (1, 8))).confidence.isfinite().all()


def test_a_pair_model_of_a_shape_lacks_no_part(small: str, tmp_path: Path) -> None:
    assert load_checkpoint(write_shape_checkpoint(small, tmp_path / "model", layout="pipo")).fresh_parts == ()
