"""What a training leaves becomes a standalone checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from pipo_core.errors import CheckpointError
from pipo_core.files import read_json
from pipo_core.merge import run_merge
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.model.adapter import load_adapted
from pipo_core.model.checkpoint import random_model
from pipo_core.model.frequent_tokens import read_draft_vocab
from pipo_core.recipes.merge import MergeRecipe
from tests.tiny import make_model, recipe, write_rows
from tests.train.trainings import (
    LORA,
    differing,
    train_here,
    weights,
)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base checkpoint."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows."""
    return write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 40)


def test_regular_objective_with_lora_merges_to_a_base(base_model: Path, rows: Path, tmp_path: Path) -> None:
    train_here(recipe(base_model, rows, objective="regular", tuning=LORA), tmp_path)
    merged = tmp_path / "merged"
    merged.mkdir()
    assert run_merge(MergeRecipe(source=str(tmp_path)), merged)["layout"] == "base"
    assert set(weights(merged / "model")) == set(weights(base_model))


def test_a_model_trained_in_full_merges_to_itself(base_model: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    assert run_merge(MergeRecipe(source=str(base_model)), merged)["copied"]
    ours, theirs = weights(merged / "model"), weights(base_model)
    assert not differing(ours, theirs)
    assert read_json(merged / "model" / "config.json") == read_json(base_model / "config.json")


def test_lora_trains_adapters_and_new_modules_only_and_merges(base_model: Path, rows: Path, tmp_path: Path) -> None:
    settings = recipe(base_model, rows, tuning=LORA, compressor={"type": "linear"})
    train_here(settings, tmp_path)
    for names in read_json(tmp_path / "adapter" / "adapter_config.json").values():
        if isinstance(names, list):
            assert names == sorted(names), "PEFT's sets have an order of each process's own"
    adapter = weights(tmp_path / "adapter")
    in_full = {name for name in adapter if "lora_" not in name}
    assert any("compressor.linear.weight" in name for name in in_full)
    assert any("confidence_head.fc1" in name for name in in_full)
    assert any("mtp.fc" in name for name in in_full)
    assert any("mtp.layers.0.self_attn.q_norm" in name for name in in_full)
    assert not any("lm_head" in name or "embed_tokens" in name for name in adapter)
    assert {name.split("layers.")[0].rsplit(".", 2)[-2] for name in adapter if "lora_" in name} == {
        "language_model",
        "mtp",
    }

    merged = tmp_path / "merged"
    merged.mkdir()
    summary = run_merge(MergeRecipe(source=str(tmp_path)), merged)
    assert summary["layout"] == "pipo"
    config = read_json(merged / "model" / "config.json")
    assert config["pipo_base"] == "tiny-base"
    assert config["compressor_type"] == "linear"
    assert config["full_attention_interval"] == 2
    assert AutoTokenizer.from_pretrained(merged / "model").chat_template
    frequent = read_draft_vocab(merged / "model")
    assert frequent == read_draft_vocab(tmp_path / "adapter")
    end = AutoTokenizer.from_pretrained(base_model).eos_token_id
    assert end in frequent.ids  # every answer ends with it
    assert len(set(frequent.ids)) == len(frequent.ids) == len(frequent.counts)

    other = random_model(base_model)
    stranger = save_checkpoint(other, tmp_path / "stranger", layout="base", tokenizer_from=base_model)
    with pytest.raises(CheckpointError, match=r"trained on 'tiny-base', and .*stranger has other weights"):
        run_merge(MergeRecipe(source=str(tmp_path), base=str(stranger)), merged)

    adapted = load_adapted(base_model, tmp_path / "adapter")
    assert isinstance(adapted, PeftModel)
    standalone = load_checkpoint(merged / "model")
    ids = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = adapted.get_base_model().forward_pairs(ids), standalone.forward_pairs(ids)
    for name in ("backbone_logits", "mtp_logits", "confidence"):
        assert (getattr(one, name) - getattr(two, name)).abs().max() < 1e-5
    with torch.no_grad():
        fresh = load_checkpoint(base_model).forward_pairs(ids)
    assert (fresh.backbone_logits - two.backbone_logits).abs().max() > 1e-3, "training changed something"


@pytest.mark.parametrize(("name", "inside"), [("models--x", True), ("models--x", False), ("home", True)])
def test_links_out_of_the_folder_are_not_copied(base_model: Path, tmp_path: Path, name: str, *, inside: bool) -> None:
    """A Hugging Face cache is made of links that stay in the repository; any other link leaves its folder."""
    repository = tmp_path / name
    folder = repository / "snapshots" / "commit"
    shutil.copytree(base_model, folder)
    target = (repository if inside else tmp_path) / "blob"
    (folder / "tokenizer.json").rename(target)
    (folder / "tokenizer.json").symlink_to(target)
    out = tmp_path / "out"
    if inside and name == "models--x":
        run_merge(MergeRecipe(source=str(folder)), out)
        assert not (out / "model" / "tokenizer.json").is_symlink()
        return
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is a link to .*blob"):
        run_merge(MergeRecipe(source=str(folder)), out)
    assert not (out / "model").exists()
