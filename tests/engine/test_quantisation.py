"""Matrices in int8: what is stored, that every method decodes with it as with the rounded weights, and refusals."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.decode.kernels import multiply_and_sum
from pipo_core.engine.torch_opening import TorchOpener, engine_on
from pipo_core.errors import MachineError
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.quantisation import int8_parts, quantise
from pipo_core.model.sizes import BF16, FP32, Widths
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import Decoding
from tests.engine.asking import ask, run
from tests.tiny import make_model

SETTINGS = TorchSettings(batch=4, device="cpu", precision="fp32", threads=1, max_length=256)
INT8 = SETTINGS.model_copy(update={"quantization": "int8"})

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason='pip install -e ".[int8]"')


@pytest.fixture(scope="module")
def quantised(random_model: Qwen3_5ForCausalPIPO) -> Qwen3_5ForCausalPIPO:
    model = copy.deepcopy(random_model)
    quantise(model)
    return model


@pytest.fixture(scope="module")
def rounded(random_model: Qwen3_5ForCausalPIPO, quantised: Qwen3_5ForCausalPIPO) -> Qwen3_5ForCausalPIPO:
    """The same model in plain numbers: each matrix is what its int8 numbers stand for."""
    model = copy.deepcopy(random_model)
    for name, module in quantised.named_modules():
        parts = int8_parts(module.weight) if isinstance(module, torch.nn.Linear) else None
        if parts is not None:
            weight = parts[0].float() * parts[1].float()
            model.get_submodule(name).weight = torch.nn.Parameter(weight)
    return model


@needs_torchao
def test_matrices_are_rounded_by_rows_and_the_rest_stays(
    random_model: Qwen3_5ForCausalPIPO, quantised: Qwen3_5ForCausalPIPO, rounded: Qwen3_5ForCausalPIPO
) -> None:
    changed = set()
    for name, before in random_model.named_modules():
        weight = getattr(before, "weight", None)
        if not isinstance(weight, torch.Tensor):
            continue
        after = quantised.get_submodule(name).weight
        assert isinstance(after, torch.Tensor)
        parts = int8_parts(after)
        if parts is None:
            assert torch.equal(after, weight)
            continue
        changed.add(name.rpartition(".")[2])
        numbers, scale = parts
        assert numbers.dtype == torch.int8
        # Each number is off by half a step at most, and a row's largest one has 127 steps.
        assert ((numbers * scale - weight).abs() <= 0.5001 * weight.abs().amax(dim=1, keepdim=True) / 127).all()
        assert torch.equal(numbers * scale, rounded.get_submodule(name).weight)
    assert {"q_proj", "in_proj_qkv", "out_proj", "down_proj", "fc", "lm_head"} <= changed
    assert not {"in_proj_a", "in_proj_b", "embed_tokens", "conv1d", "fc1", "fc2", "norm"} & changed
    compressor = [module for module in quantised.compressor.modules() if isinstance(module, torch.nn.Linear)]
    assert compressor
    assert all(int8_parts(module.weight) is not None for module in compressor)


@needs_torchao
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding("regular"),
        Decoding("mtp"),
        Decoding("eagle", drafts=2),
        Decoding("pipo", tau=0.5),
        Decoding("pipo", acceptance=1.0, draft_vocab=40),
    ],
    ids=lambda decoding: f"{decoding.method}-{decoding.draft_vocab}",
)
def test_every_method_writes_what_the_rounded_weights_write(
    quantised: Qwen3_5ForCausalPIPO,
    rounded: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerFast,
    decoding: Decoding,
) -> None:
    requests = [replace(ask(number, 5 + number), max_tokens=16) for number in range(4)]
    texts = []
    for model in (quantised, rounded):
        engine = engine_on(model, tokenizer, decoding, SETTINGS, by_frequency=range(model.config.vocab_size))
        texts.append({name: completion.token_ids for name, completion in run(engine, requests).items()})
    assert texts[0] == texts[1]
    assert len({tuple(ids) for ids in texts[0].values()}) == 4


@needs_torchao
def test_the_product_of_compiled_steps_reads_int8(quantised: Qwen3_5ForCausalPIPO) -> None:
    weight = quantised.lm_head.weight
    vector = torch.randn(1, weight.shape[1])
    torch.testing.assert_close(multiply_and_sum(vector, weight), vector @ weight.dequantize().T, atol=1e-4, rtol=1e-4)


@needs_torchao
def test_engines_share_weights_of_one_form_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of one checkpoint there may be arms in several number formats: each has its own weights."""
    ckpt, opener = make_model(tmp_path / "pair", layout="pipo"), TorchOpener()
    half = SETTINGS.model_copy(update={"precision": "bf16"})
    opened = [opener.open(ckpt, Decoding("regular"), one) for one in (SETTINGS, INT8, half, SETTINGS)]
    assert [record.message for record in caplog.records if "int8" in record.message] == [
        "int8 without engine.compile is slower than bf16: every product unpacks its matrix first"
    ]
    plain, int8, bf16, again = (engine._method.model for engine in opened)
    assert plain is again
    assert int8_parts(int8.lm_head.weight) is not None
    assert int8_parts(plain.lm_head.weight) is None
    assert (plain.lm_head.weight.dtype, bf16.lm_head.weight.dtype) == (torch.float32, torch.bfloat16)
    assert [engine.reports.widths for engine in opened] == [FP32, Widths(1, 4), BF16, FP32]


def test_without_torchao_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.machine.importlib.util.find_spec", lambda name: None)
    ckpt = make_model(tmp_path / "pair", layout="pipo")
    with pytest.raises(MachineError, match=r"engine.quantization needs torchao") as caught:
        TorchOpener().open(ckpt, Decoding("regular"), INT8)
    assert ".[int8]" in str(caught.value.hint)


def test_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.engine.torch_opening.find_device", lambda name: torch.device("cuda"))
    settings = INT8.model_copy(update={"device": "auto"})
    for refused in (TorchOpener().check, lambda one: TorchOpener().open(tmp_path, Decoding("regular"), one)):
        with pytest.raises(MachineError, match="quantization=int8 is for CPUs"):
            refused(settings)
