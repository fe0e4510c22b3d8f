"""Shapes of the published Qwen3.5 sizes, for models with random weights in place of the published ones.

Speed and memory depend on the shape alone, so a bench or a first training step needs no download.

The figures are those of ``config.json`` (``text_config``) in ``Qwen/Qwen3.5-0.8B``, ``-2B``, ``-4B`` and ``-9B``; the
9B's are also the defaults of transformers' `Qwen3_5TextConfig`. All sizes share: 248,320 tokens (padded), one
full-attention layer in four, attention heads of 256 dimensions of which a quarter are rotary (theta 1e7), 16
linear-attention key heads of 128 dimensions, a convolution over 4 positions, and one MTP layer. The models that are
built from them have exactly as many weights as the published checkpoints.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import UsageError
from pipo_core.model.checkpoint import random_weights
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.weight_files import Layout
from pipo_core.model.writing import save_checkpoint
from pipo_core.recipes.locate import bundled_model
from pipo_core.text import did_you_mean


@dataclass(frozen=True)
class Shape:
    """The figures in which the sizes differ; the defaults are those of all published ones.

    Attributes:
        hidden: ``H``.
        intermediate: width of the feed-forward layers.
        layers: of the backbone, a multiple of ``every``.
        heads: query heads of a full-attention layer.
        kv_heads: its key and value heads.
        value_heads: of a linear-attention layer.
        tied: whether the LM head is the embedding.
        every: of so many layers one has full attention.
        head_dim: of a full-attention head.
        key_heads: of a linear-attention layer.
        linear_dim: of its heads.
        vocabulary: tokens.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    value_heads: int
    tied: bool
    every: int = 4
    head_dim: int = 256
    key_heads: int = 16
    linear_dim: int = 128
    vocabulary: int = 248_320


SHAPES: dict[str, Shape] = {
    "qwen3.5-0.8b": Shape(1024, 3584, 24, heads=8, kv_heads=2, value_heads=16, tied=True),
    "qwen3.5-2b": Shape(2048, 6144, 24, heads=8, kv_heads=2, value_heads=16, tied=True),
    "qwen3.5-4b": Shape(2560, 9216, 32, heads=16, kv_heads=4, value_heads=32, tied=True),
    "qwen3.5-9b": Shape(4096, 12288, 32, heads=16, kv_heads=4, value_heads=32, tied=False),
}
"""Published sizes, by catalog name."""

MADE_SHAPES: dict[str, Shape] = {
    "many-keys": Shape(
        256,
        512,
        8,
        heads=8,
        kv_heads=8,
        value_heads=4,
        tied=True,
        every=2,
        head_dim=128,
        key_heads=4,
        linear_dim=64,
        vocabulary=1024,
    ),
}
"""Shapes of ours, for measuring.

``many-keys`` is no model: its keys and values soon outweigh its few small layers, so a CPU
enters the regime of many users and long contexts that a published size enters on a large GPU.
"""


def shape_config(name: str) -> Qwen3_5TextConfig:
    """Return the text configuration of a shape.

    Args:
        name: of a shape in `SHAPES` or `MADE_SHAPES`, e.g. ``qwen3.5-4b``.

    Raises:
        UsageError: if there is no such size here.
    """
    known = {**SHAPES, **MADE_SHAPES}
    if name not in known:
        raise UsageError(
            f"no shape is called {name!r}{did_you_mean(name, known)}", hint=f"choose one of {', '.join(known)}"
        )
    shape = known[name]
    return Qwen3_5TextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        full_attention_interval=shape.every,
        linear_num_key_heads=shape.key_heads,
        linear_num_value_heads=shape.value_heads,
        linear_key_head_dim=shape.linear_dim,
        linear_value_head_dim=shape.linear_dim,
        linear_conv_kernel_dim=4,
        max_position_embeddings=262_144,
        rms_norm_eps=1e-6,
        tie_word_embeddings=shape.tied,
        eos_token_id=min(248_044, shape.vocabulary - 1),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
    )


def random_shape_model(
    name: str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Qwen3_5ForCausalPIPO:
    """Return a pair model of a published size with random weights, in evaluation mode.

    It is built on ``device`` in ``dtype``, so it takes no more memory than its weights, and no file is read or written.
    The weights depend on ``seed``, ``dtype`` and the kind of device. The caller's random state is unchanged.

    Args:
        name: of a shape in `SHAPES` or `MADE_SHAPES`.
        dtype: of the weights.
        device: where they are.
        seed: of the weights.

    Raises:
        UsageError: if there is no such size here.
    """
    config = shape_config(name)
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        model = random_weights(config, dtype=dtype, device=place)
    model.eval()
    return model


def write_shape_checkpoint(
    name: str,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    layout: Layout = "base",
) -> Path:
    """Write a checkpoint of a published size with random weights and return its folder.

    The folder appears complete or not at all. It replaces the published checkpoint where only speed and memory matter:
    `pipo train model=FOLDER` runs on it. Tokenizer and chat template are the tiny world's, so text is encoded with a
    few hundred of the 248,320 tokens.

    Args:
        name: of a shape in `SHAPES` or `MADE_SHAPES`.
        folder: where it is written.
        dtype: of the weights on disk.
        seed: of the weights.
        layout: ``base`` as published, with the MTP head; ``pipo`` with compressor and confidence head too.

    Raises:
        UsageError: if there is no such size here.
    """
    model = random_shape_model(name, dtype=dtype, seed=seed)
    return save_checkpoint(model, folder, layout=layout, tokenizer_from=bundled_model("tiny-student"))
