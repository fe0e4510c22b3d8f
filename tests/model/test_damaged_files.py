"""Damaged checkpoints: refused in one line that names the file, or loaded with the numbers that the file holds."""

import json
import logging
import os
import resource
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipo_core.chat import load_tokenizer
from pipo_core.errors import CheckpointError
from pipo_core.model import load_checkpoint
from pipo_core.model.checkpoint import load_config
from pipo_core.model.configuration import MAX_LAYERS
from tools.fuzz import areas
from tools.fuzz.areas import Checkpoint
from tools.fuzz.mutations import HUGE

DRAWN = st.randoms(use_true_random=False)
WEIGHTS = "model.safetensors"


def few(count: int) -> settings:
    return settings(derandomize=True, max_examples=count, database=None)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return areas.reference_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return areas.reference_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return areas.tokenizer_folder(tmp_path_factory.mktemp("tokenizer"))


@few(80)
@given(DRAWN)
def test_any_damage_to_a_weight_file(damaged: Checkpoint, rng: Random) -> None:
    areas.weights(rng, damaged)


@few(80)
@given(DRAWN)
def test_any_damage_to_a_configuration(damaged: Checkpoint, rng: Random) -> None:
    areas.config(rng, damaged)


@few(40)
@given(DRAWN)
def test_any_damage_to_an_index(damaged: Checkpoint, rng: Random) -> None:
    areas.index(rng, damaged)


@few(80)
@given(DRAWN)
def test_any_damage_to_a_tokenizer(tokenizer: Checkpoint, rng: Random) -> None:
    areas.tokenizer(rng, tokenizer)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": HUGE},
        {"hidden_size": 2**40},
        {"vocab_size": HUGE},
        {"intermediate_size": HUGE},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": MAX_LAYERS, "layer_types": None},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 2**70},
        {"num_hidden_layers": "4"},
        {"layer_types": ["full_attention"] * 100_000},
        {"layer_types": ["full_attention"]},
        {"head_dim": HUGE},
        {"num_attention_heads": HUGE},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"num_key_value_heads": 3},
        {"linear_num_key_heads": 3},
        {"linear_conv_kernel_dim": HUGE},
        {"pad_token_id": HUGE},
        {"pad_token_id": -HUGE},
        {"architectures": 3},
        {"compressor_type": ["mlp"]},
        {"pipo_base": ["x"]},
        {"rms_norm_eps": float("nan")},
        {"dtype": "nonsense"},
        {"dtype": "nn"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": float("inf")}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 1e9}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [1, 2]}},
        {"rope_parameters": {"rope_type": "magic", "rope_theta": 1e7}},
        {"rope_parameters": 3},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_configuration_that_does_not_fit_is_refused_before_memory_is_taken(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def no_memory(*args: object, **options: object) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr("pipo_core.model.checkpoint._set_parameter", no_memory)
    monkeypatch.setattr("pipo_core.model.checkpoint._materialise_buffers", no_memory)
    content = {**json.loads(checkpoint.raw["config.json"]), **changes}
    assert checkpoint.tried("config.json", json.dumps(content).encode(), _loaded) == "refused"


def test_labels_of_a_classifier_are_not_written_out(checkpoint: Checkpoint) -> None:
    content = {**json.loads(checkpoint.raw["config.json"]), "num_labels": 10**12}
    (checkpoint.folder / "config.json").write_text(json.dumps(content))
    assert load_config(checkpoint.folder).num_labels == 2


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_numbers_that_need_more_than_themselves_are_refused(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    weights = load_file(checkpoint.folder / WEIGHTS)
    weights["mtp.fc.weight"] = weights["mtp.fc.weight"].to(dtype)
    save_file(weights, checkpoint.folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"mtp\.fc\.weight is stored as"):
        load_checkpoint(checkpoint.folder)


def test_a_weight_that_two_files_hold_is_refused(checkpoint: Checkpoint) -> None:
    weights = load_file(checkpoint.folder / WEIGHTS)
    save_file({"mtp.norm.weight": weights["mtp.norm.weight"] + 1}, checkpoint.folder / "other.safetensors")
    index = {"weight_map": {**dict.fromkeys(weights, WEIGHTS), "mtp.norm.weight": "other.safetensors"}}
    (checkpoint.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"mtp\.norm\.weight, which .* holds too"):
        load_checkpoint(checkpoint.folder)
    del weights["mtp.norm.weight"]
    save_file(weights, checkpoint.folder / WEIGHTS)
    assert load_checkpoint(checkpoint.folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinite_weights_load_with_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, number: float
) -> None:
    with caplog.at_level(logging.WARNING, "pipo_core.model.checkpoint"):
        load_checkpoint(checkpoint.folder)
        assert not caplog.records
        weights = load_file(checkpoint.folder / WEIGHTS)
        weights["mtp.fc.weight"][3, 4] = number
        save_file(weights, checkpoint.folder / WEIGHTS)
        for dtype in (torch.float32, torch.bfloat16):
            load_checkpoint(checkpoint.folder, dtype=dtype)
    assert [record.getMessage() for record in caplog.records] == [
        f"{checkpoint.folder}: weights with NaN or infinite numbers: mtp.fc.weight"
    ] * 2


def test_a_symlink_may_point_anywhere(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("blobs") / "blob"
    (checkpoint.folder / WEIGHTS).rename(elsewhere)
    (checkpoint.folder / WEIGHTS).symlink_to(elsewhere)
    assert load_checkpoint(checkpoint.folder)


def test_pipes_in_place_of_files_are_not_waited_for(checkpoint: Checkpoint, tokenizer: Checkpoint) -> None:
    for name in ("config.json", WEIGHTS):
        (checkpoint.folder / name).unlink()
        os.mkfifo(checkpoint.folder / name)
        with pytest.raises(CheckpointError):
            load_checkpoint(checkpoint.folder)
        (checkpoint.folder / name).unlink()
        (checkpoint.folder / name).write_bytes(checkpoint.raw[name])
    for name in tokenizer.raw:
        (checkpoint.folder / name).write_bytes(tokenizer.raw[name])
    for name in tokenizer.raw:
        (checkpoint.folder / name).unlink()
        os.mkfifo(checkpoint.folder / name)
        with pytest.raises(CheckpointError):
            load_tokenizer(checkpoint.folder)
        (checkpoint.folder / name).unlink()
        (checkpoint.folder / name).write_bytes(tokenizer.raw[name])
    assert load_tokenizer(checkpoint.folder)


def _loaded(folder: Path) -> None:
    load_checkpoint(folder)


BOMBS = {
    "{{ 'x' * 10000000000 }}": "GiB of memory",
    "{% set ns = namespace(t='x') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}": "GiB of memory",
    "{{ '%09999999999d' | format(1) }}": "GiB of memory|cannot lay out a chat",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "2 seconds",
}


@pytest.mark.parametrize("template", BOMBS)
def test_a_chat_template_that_takes_all_memory_or_time_is_refused(
    tokenizer: Checkpoint, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    # One that takes all memory has as long as it needs: a busy machine is slow at it.
    monkeypatch.setattr("pipo_core.chat.bounds._SECONDS", 2 if "seconds" in BOMBS[template] else 120)
    before = resource.getrlimit(resource.RLIMIT_AS)
    (tokenizer.folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=BOMBS[template]):
        load_tokenizer(tokenizer.folder)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    (tokenizer.folder / "chat_template.jinja").write_bytes(tokenizer.raw["chat_template.jinja"])
    assert load_tokenizer(tokenizer.folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_implementation", "someone/kernel"),
        ("_attn_implementation", "someone/kernel"),
        ("_attn_implementation_internal", "someone/kernel:fn"),
        ("experts_implementation", "someone/kernel"),
        ("use_kernels", True),
        ("kernel_config", {"RMSNorm": "someone/kernel"}),
        ("quantization_config", {"quant_method": "someone"}),
        ("auto_map", {"AutoModel": "evil.Model"}),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_does_not_choose_how_it_is_computed(
    checkpoint: Checkpoint, key: str, value: Any, *, nested: bool
) -> None:
    """By such keys transformers would download a kernel and run it."""
    raw = json.loads(checkpoint.raw["config.json"])
    plain = load_config(checkpoint.folder)
    changed = (
        {"model_type": "qwen3_5", key: value, "text_config": {**raw, key: value}} if nested else {**raw, key: value}
    )
    (checkpoint.folder / "config.json").write_text(json.dumps(changed))
    found = load_config(checkpoint.folder)
    (checkpoint.folder / "config.json").write_bytes(checkpoint.raw["config.json"])
    assert found._attn_implementation == plain._attn_implementation
    assert not hasattr(found, key) or getattr(found, key) == getattr(plain, key)
