"""Checkpoint files: every layout loads, what is missing or damaged is named, nothing is unpickled."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

import pipo_core.model
from pipo_core.errors import CheckpointError
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint, save_checkpoint
from pipo_core.model.frequent_tokens import DRAFT_VOCAB, FrequentTokens, read_draft_vocab, write_draft_vocab
from pipo_core.model.weight_files import Layout
from pipo_core.model.writing import write_weights

PIPO_PARTS = ("compressor.", "confidence_head.")


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def copy(reference_folder: Path, tmp_path: Path) -> Path:
    """The authors' checkpoint, to be damaged."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(reference_folder / name, folder)
    return folder


@pytest.fixture
def official(copy: Path) -> Path:
    """The same weights as an official base lays them out: nested configuration, vision tower, no PIPO parts."""
    weights = load_file(copy / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(PIPO_PARTS)}
    weights["model.visual.blocks.0.attn.qkv.weight"] = torch.zeros(4, 4)
    save_file(weights, copy / "model.safetensors")
    text = json.loads((copy / "config.json").read_text())
    for key in ("architectures", "compressor_type"):
        text.pop(key)
    nested = {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": text,
        "tie_word_embeddings": True,
    }
    (copy / "config.json").write_text(json.dumps(nested))
    return copy


def test_an_official_base_becomes_a_fresh_start(official: Path, reference: Qwen3_5ForCausalPIPO) -> None:
    model = load_checkpoint(official)
    ids = torch.randint(2, 384, (1, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.forward_regular(ids), reference.forward_regular(ids), atol=0, rtol=0)
        embedded = model.embed(ids).unflatten(1, (-1, 2))
        summed = torch.nn.functional.silu(embedded).sum(dim=2)  # W1 = I, W2 = [I I]
        torch.testing.assert_close(model.compress(ids), summed)
    assert model.confidence_head.norm.weight.abs().sum() == 0
    assert model.confidence_head.fc1.weight.std() > 0


def test_the_linear_compressor_starts_as_a_plain_sum(official: Path) -> None:
    config = json.loads((official / "config.json").read_text())
    config["text_config"]["compressor_type"] = "linear"
    (official / "config.json").write_text(json.dumps(config))
    model = load_checkpoint(official)
    ids = torch.randint(2, 384, (1, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.compress(ids), model.embed(ids).unflatten(1, (-1, 2)).sum(dim=2))


@pytest.mark.parametrize("layout", ["pipo", "base"])
def test_what_is_saved_loads_the_same(
    reference: Qwen3_5ForCausalPIPO, tmp_path: Path, layout: Layout, reference_folder: Path
) -> None:
    folder = save_checkpoint(reference, tmp_path / "saved", layout=layout, base="some-base")
    config = json.loads((folder / "config.json").read_text())
    assert config["full_attention_interval"] == 4
    assert config["pipo_base"] == "some-base"
    if layout == "pipo":
        assert config["architectures"] == ["Qwen3_5ForCausalPIPO"]
        ours = load_file(folder / "model.safetensors")
        theirs = load_file(reference_folder / "model.safetensors")
        assert ours.keys() == theirs.keys()
    again = load_checkpoint(folder).state_dict()
    for name, tensor in reference.state_dict().items():
        if layout == "pipo" or not name.startswith(PIPO_PARTS):
            assert torch.equal(again[name], tensor), name


def test_stock_transformers_reads_a_base(reference: Qwen3_5ForCausalPIPO, tmp_path: Path) -> None:
    folder = save_checkpoint(reference, tmp_path / "base", layout="base")
    stock, report = Qwen3_5ForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    ids = torch.randint(2, 384, (1, 10), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(stock(input_ids=ids).logits, reference.forward_regular(ids), atol=1e-5, rtol=0)


def test_stock_text_names_load(copy: Path, reference: Qwen3_5ForCausalPIPO) -> None:
    weights = load_file(copy / "model.safetensors")
    renamed = {name.replace("model.language_model.", "model."): tensor for name, tensor in weights.items()}
    save_file(renamed, copy / "model.safetensors")
    assert torch.equal(load_checkpoint(copy).lm_head.weight, reference.lm_head.weight)


def test_sharded_and_untied(reference_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_checkpoint(reference_folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(384, 64))
    monkeypatch.setattr("pipo_core.model.writing._SHARD_SIZE", "200KB")
    write_weights(model, tmp_path / "sharded", layout="pipo")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    again = load_checkpoint(tmp_path / "sharded")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.text_model.embed_tokens.weight)
    next((tmp_path / "sharded").glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="model-00002"):
        load_checkpoint(tmp_path / "sharded")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_take_the_dtype_asked_for(
    reference_folder: Path, reference: Qwen3_5ForCausalPIPO, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipo_core.model.weight_files._BLOCK_BYTES", 1000)  # rows in several blocks
    model = load_checkpoint(reference_folder, dtype=dtype)
    for name, tensor in model.named_parameters():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, reference.get_parameter(name).to(dtype)), name


@pytest.mark.parametrize(
    "name",
    ["model.language_model.layers.2.mlp.up_proj.weight", "mtp.fc.weight", "compressor.mlp.0.bias"],
)
def test_missing_weights_are_named(copy: Path, name: str) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights[name]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(copy)


def test_weights_of_the_wrong_shape_are_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["mtp.norm.weight"] = torch.zeros(65)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mtp\.norm\.weight is \[65\].*\[64\]"):
        load_checkpoint(copy)


def test_a_base_without_an_mtp_head_is_refused_unless_a_fresh_one_is_asked_for(official: Path) -> None:
    weights = load_file(official / "model.safetensors")
    save_file({n: t for n, t in weights.items() if not n.startswith("mtp.")}, official / "model.safetensors")
    with pytest.raises(CheckpointError, match="no mtp"):
        load_checkpoint(official)
    model = load_checkpoint(official, fresh_mtp=True)
    assert model.mtp.fc.weight.std() > 0
    assert model.mtp.norm.weight.abs().sum() == 0


def test_a_truncated_file_is_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 1000, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or incomplete"):
            load_checkpoint(copy)


def test_pickles_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"compressor_type": "magic"}, "magic"),
        ({"hidden_size": "wide"}, "configuration"),
        ({"num_hidden_layers": -1}, "configuration|lacks|layer"),
        ({"vocab_size": 100}, "wrong shape"),
    ],
)
def test_a_wrong_configuration_is_refused(copy: Path, changes: dict[str, object], message: str) -> None:
    edit_config(copy, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


def test_an_index_may_not_point_outside_its_folder(copy: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside"):
        load_checkpoint(copy)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_checkpoint(tmp_path)


def test_a_draft_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = FrequentTokens([7, 3, 900], [30, 9, 1])
    write_draft_vocab(tmp_path, written)
    assert read_draft_vocab(tmp_path) == written
    assert [written.share_beyond(size) for size in (0, 1, 2, 3, 9)] == [1.0, 0.25, 0.025, 0.0, 0.0]
    write_draft_vocab(tmp_path, written._replace(gate=2))
    assert read_draft_vocab(tmp_path).gate == 2
    (tmp_path / DRAFT_VOCAB).write_text('{"ids": [7], "counts": [30]}')  # as older versions wrote it
    assert read_draft_vocab(tmp_path).gate is None


@pytest.mark.parametrize(
    "content",
    [
        '{"ids": [], "counts": []}',
        '{"ids": [1, -2], "counts": [2, 1]}',
        '{"ids": [true], "counts": [1]}',
        "[1, 2]",
        '{"ids": {"1": 2}, "counts": [1]}',
        '{"ids": [1, 2]}',
        '{"ids": [1, 2], "counts": [3]}',
        '{"ids": [1, 2], "counts": [3, 0]}',
        '{"ids": [1], "counts": [3], "gate": 0}',
        '{"ids": [1], "counts": [3], "gate": true}',
    ],
)
def test_a_damaged_draft_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / DRAFT_VOCAB).write_text(content)
    with pytest.raises(CheckpointError, match=r"no list of whole numbers|as many counts as ids|null or a whole number"):
        read_draft_vocab(tmp_path)


def test_a_missing_draft_vocabulary_is_reported_with_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no draft_vocab\.json") as caught:
        read_draft_vocab(tmp_path)
    assert "pipo train" in (caught.value.hint or "")


def test_a_load_builds_its_empty_model_once(reference_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = Qwen3_5ForCausalPIPO.__init__

    def counted(model: Qwen3_5ForCausalPIPO, config: Qwen3_5TextConfig) -> None:
        built.append(config)
        build(model, config)

    monkeypatch.setattr(Qwen3_5ForCausalPIPO, "__init__", counted)
    load_checkpoint(reference_folder)
    assert len(built) == 1


def test_no_module_of_the_room_imports_another_inside_a_function() -> None:
    """An import that has to wait is half of a circle."""
    late = [
        f"{file.name}:{node.lineno}"
        for file in sorted(Path(pipo_core.model.__file__).parent.glob("*.py"))
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipo_core.model")
    ]
    assert late == []
