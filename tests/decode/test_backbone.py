"""The decode pass for one position against the stock text model on the same cache."""

import copy
from typing import Any

import pytest
import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode import backbone, kernels
from pipo_core.decode.cache import SequenceCache
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.checkpoint import random_weights
from pipo_core.model.stock_cache import cache_keyword

LENGTHS = [5, 1, 9]


def decode_inputs(cache: SequenceCache) -> dict[str, Any]:
    """Return the keyword arguments with which the stock text model runs one new position a sequence on ``cache``."""
    return {
        "position_ids": cache.positions(),
        "attention_mask": {"full_attention": cache.mask(), "linear_attention": None},
        "use_cache": True,
        **cache_keyword(cache),
    }


def make_model(
    *,
    key_heads: int = 2,
    value_heads: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    compressor_type: str = "mlp",
) -> Qwen3_5ForCausalPIPO:
    """Return a small model whose every weight, norms and biases too, is random."""
    config = Qwen3_5TextConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        linear_num_key_heads=key_heads,
        linear_num_value_heads=value_heads,
        linear_key_head_dim=16,
        linear_value_head_dim=8,
        tie_word_embeddings=True,
        compressor_type=compressor_type,
    )
    torch.manual_seed(0)
    model: Qwen3_5ForCausalPIPO = random_weights(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def filled(config: Qwen3_5TextConfig, lengths: list[int], dtype: torch.dtype = torch.float32) -> SequenceCache:
    """Return a cache of random states."""
    cache = SequenceCache(config, max_sequences=len(lengths), capacity=32, dtype=dtype, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    states = [[torch.randn(b.shape, generator=generator).to(b.dtype) for b in layer.buffers] for layer in cache.layers]
    cache.load(states, lengths)
    return cache


@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4], [7]])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"key_heads": 4, "value_heads": 4, "heads": 2, "kv_heads": 2, "head_dim": 32},
        {"key_heads": 1, "value_heads": 3, "heads": 6, "kv_heads": 1},
    ],
)
@torch.inference_mode()
def test_the_pass_equals_the_stock_model(shape: dict[str, Any], lengths: list[int]) -> None:
    model = make_model(**shape)
    ours, stock = (filled(model.config, lengths) for _ in range(2))
    for step in range(5):
        inputs = torch.randn(len(lengths), 48, generator=torch.Generator().manual_seed(step))
        expected = model.text_model(inputs_embeds=inputs[:, None], **decode_inputs(stock)).last_hidden_state[:, 0]
        torch.testing.assert_close(backbone.decode_pass(model, inputs, ours), expected, atol=1e-5, rtol=1e-5)
        ours.advance()
        stock.advance()
    for mine, theirs in zip(ours.layers, stock.layers, strict=True):
        for buffer, other in zip(mine.buffers, theirs.buffers, strict=True):
            torch.testing.assert_close(buffer, other, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_pass_in_bf16_is_as_near_to_fp32_as_the_stock_model() -> None:
    exact = make_model()
    model = copy.deepcopy(exact).to(torch.bfloat16)
    inputs = torch.randn(3, 48, generator=torch.Generator().manual_seed(2)).bfloat16()
    reference = backbone.decode_pass(exact, inputs.float(), filled(model.config, LENGTHS))
    ours = backbone.decode_pass(model, inputs, filled(model.config, LENGTHS, torch.bfloat16))
    cache = filled(model.config, LENGTHS, torch.bfloat16)
    stock = model.text_model(inputs_embeds=inputs[:, None], **decode_inputs(cache)).last_hidden_state[:, 0]
    assert (ours - reference).norm() <= 1.2 * (stock - reference).norm()


@torch.inference_mode()
def test_the_draft_pass_equals_the_block() -> None:
    model = make_model()
    ours, stock = (filled(model.mtp.config, LENGTHS) for _ in range(2))
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        embeddings, hidden = (torch.randn(3, 48, generator=generator) for _ in range(2))
        expected = model.mtp(
            embeddings[:, None],
            hidden[:, None],
            position_ids=stock.positions(),
            attention_mask=stock.mask(),
            cache=stock,
        )[:, 0]
        torch.testing.assert_close(backbone.mtp_pass(model, embeddings, hidden, ours), expected, atol=1e-5, rtol=1e-5)
        ours.advance()
        stock.advance()


@pytest.mark.parametrize("kind", ["mlp", "linear"])
@torch.inference_mode()
def test_compressor_and_gate_equal_the_modules(kind: str) -> None:
    model = make_model(compressor_type=kind)
    pairs = torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.compress(model, pairs), model.compressor(pairs), atol=1e-5, rtol=1e-5)
    expected = model.confidence_head(pairs[:, 0], pairs[:, 1]).sigmoid()
    torch.testing.assert_close(backbone.gate(model, pairs[:, 0], pairs[:, 1]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_compiled_steps_equal_plain_ones(dtype: torch.dtype) -> None:
    model = make_model(dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    plain, compiled = (filled(model.config, [6], dtype) for _ in range(2))
    for step in range(3):
        inputs = torch.randn(1, 48, generator=torch.Generator().manual_seed(step)).to(dtype)
        model.compiled_steps = False
        expected = backbone.decode_pass(model, inputs, plain)
        logits = backbone.lm_head(model, expected)
        kernels.compile_steps(model)
        assert model.compiled_steps
        hidden = backbone.decode_pass(model, inputs, compiled)
        torch.testing.assert_close(hidden, expected, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(backbone.lm_head(model, expected), logits, atol=tolerance, rtol=tolerance)
        plain.advance()
        compiled.advance()


def test_without_a_compiler_the_plain_steps_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no C++ compiler\nand much more")

    model = make_model()
    monkeypatch.setattr(kernels, "_ON_CPU", kernels._ON_CPU._replace(matrix=fail))
    kernels.compile_steps(model)
    assert not model.compiled_steps
    assert "cannot compile them: no C++ compiler" in caplog.text
