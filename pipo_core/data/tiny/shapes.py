"""The shapes of the tiny models: Qwen3.5's architecture at one to two million parameters."""

from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

_HEAD_DIM = 32

SHAPES: dict[str, dict[str, int]] = {
    "tiny-student": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4},
    "tiny-teacher": {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4},
}
"""Sizes of the tiny models; the rest of their architecture is in `tiny_config`.

It differs from Qwen3.5's in three points. Every second layer is full attention (Qwen3.5: every fourth), because without
fused kernels the gated-delta layers cost most at short lengths. RoPE rotates all 32 dimensions of a head at base 1,000
(Qwen3.5: a quarter of 256 dimensions, at base 10^7), because a quarter of 32 leaves one useful frequency. Initial
weights have a larger spread. docs/results/tiny-world.md has the measurements.
"""


def tiny_config(name: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the ``config.json`` of a tiny model; ``name`` is a key of `SHAPES`."""
    shape = SHAPES[name]
    layers = shape["num_hidden_layers"]
    config = Qwen3_5TextConfig(
        **shape,
        vocab_size=-(-len(tokenizer) // 64) * 64,
        layer_types=["full_attention" if layer % 2 else "linear_attention" for layer in range(layers)],
        head_dim=_HEAD_DIM,
        num_attention_heads=shape["hidden_size"] // _HEAD_DIM,
        num_key_value_heads=shape["hidden_size"] // (2 * _HEAD_DIM),
        linear_num_key_heads=1,
        linear_num_value_heads=1,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        linear_conv_kernel_dim=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.06,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e3,
            "partial_rotary_factor": 1.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    ).to_dict()
    return {**config, "mtp_num_hidden_layers": 1, "full_attention_interval": 2}
