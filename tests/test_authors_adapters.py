"""Adapters as the authors' scripts make them: merged, they compute what the authors' own code computed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipo_core.errors import CheckpointError
from pipo_core.merge import run_merge
from pipo_core.model import load_checkpoint
from pipo_core.recipes.merge import MergeRecipe

MADE = Path(__file__).parent / "fixtures" / "authors-adapters-a"
OWN_BASE = {"sft": "base", "opd": "full"}


def merge(kind: str, base: Path, out: Path, *, adapter: Path | None = None, force: bool = False) -> Path:
    source = adapter or MADE / f"adapter-{kind}"
    out.mkdir(exist_ok=True)
    run_merge(MergeRecipe(source=str(source), base=str(base), force=force), out)
    return out / "model"


@pytest.fixture
def changed_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Return an SFT adapter whose configuration or weights are other ones."""

    def change(config: dict[str, Any] | None = None, weights: dict[str, torch.Tensor] | None = None) -> Path:
        folder = shutil.copytree(MADE / "adapter-sft", tmp_path / "changed")
        content = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**content, **(config or {})}))
        if weights:
            file = folder / "adapter_model.safetensors"
            save_file({**load_file(file), **weights}, file)
        return folder

    return change


@pytest.mark.parametrize("kind", OWN_BASE)
def test_a_merged_adapter_computes_the_authors_numbers(kind: str, tmp_path: Path) -> None:
    expected = load_file(MADE / f"ref-{kind}.safetensors")
    model = load_checkpoint(merge(kind, MADE / OWN_BASE[kind], tmp_path))
    assert model.fresh_parts == ()
    with torch.no_grad():
        output = model.forward_pairs(expected["ids"])
    for name in ("backbone_logits", "mtp_logits", "confidence"):
        torch.testing.assert_close(getattr(output, name).float(), expected[name], atol=1e-4, rtol=0)


def test_the_adapter_changes_what_its_base_computes(tmp_path: Path) -> None:
    expected = load_file(MADE / "ref-opd.safetensors")
    plain = load_checkpoint(MADE / "full")
    with torch.no_grad():
        output = plain.forward_pairs(expected["ids"])
    torch.testing.assert_close(output.backbone_logits, expected["zero.backbone_logits"], atol=1e-4, rtol=0)
    assert (output.backbone_logits - expected["backbone_logits"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sft", "was fine-tuned from a plain base .* is a pair model already"),
        ("opd", "distilled from a merged SFT model"),
    ],
)
def test_a_base_of_the_other_stage_is_refused_unless_forced(kind: str, words: str, tmp_path: Path) -> None:
    other = MADE / ("full" if OWN_BASE[kind] == "base" else "base")
    with pytest.raises(CheckpointError, match=words) as refused:
        merge(kind, other, tmp_path / "out")
    assert "--force" in str(refused.value.hint)
    assert not list((tmp_path / "out").iterdir())
    merge(kind, other, tmp_path / "out", force=True)


def test_a_base_of_another_name_on_the_hub_is_refused(tmp_path: Path) -> None:
    def cached(name: str) -> Path:
        return shutil.copytree(MADE / "base", tmp_path / f"models--{name}" / "snapshots" / "0")

    with pytest.raises(CheckpointError, match=r"trained on 'Qwen/Qwen3\.5-4B', and .* is 'Qwen/Qwen3\.5-4B-Base'"):
        merge("sft", cached("Qwen--Qwen3.5-4B-Base"), tmp_path / "out")
    merge("sft", cached("Qwen--Qwen3.5-4B"), tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lora_alpha": float("nan")}, "lora_alpha = nan is not a finite number"),
        ({"lora_alpha": float("inf")}, "lora_alpha"),
        ({"r": "8"}, "r = '8' is not a finite number"),
        ({"target_modules": "(a+)+$"}, "target_modules must be a list of plain names"),
        ({"target_modules": ["(a+)+$"]}, "target_modules must be a list of plain names"),
        ({"modules_to_save": ["x|y"]}, "modules_to_save must be a list of plain names"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern is set"),
        ({"exclude_modules": "(a+)+$"}, "exclude_modules is set"),
        ({"use_dora": True}, "use_dora is set"),
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not LORA"),
        ({"r": 4}, "does not fit"),
    ],
)
def test_a_configuration_that_is_not_plain_is_refused_before_a_model_is_written(
    config: dict[str, Any], words: str, changed_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        merge("sft", MADE / "base", tmp_path / "out", adapter=changed_adapter(config))
    assert not list((tmp_path / "out").glob("model"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    value: float, changed_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    name = "base_model.model.confidence_head.norm.weight"
    weight = load_file(MADE / "adapter-sft" / "adapter_model.safetensors")[name].clone()
    weight.view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite values, such as .*confidence_head\.norm"):
        merge("sft", MADE / "base", tmp_path / "out", adapter=changed_adapter(weights={name: weight}))
    assert not list((tmp_path / "out").glob("model"))


def test_a_weight_of_no_module_is_refused(changed_adapter: Callable[..., Path], tmp_path: Path) -> None:
    stray = {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(8, 64)}
    with pytest.raises(CheckpointError, match=r"1 weights do not match, such as .*layers\.9"):
        merge("sft", MADE / "base", tmp_path / "out", adapter=changed_adapter(weights=stray))
