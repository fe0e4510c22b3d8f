"""What a decode step moves and multiplies at least, and what a sequence keeps, computed from shapes alone.

At batch ``B`` and ``b`` bytes per weight a step moves::

    b · weights + B · (cache + 2 · states)

Each method states which weights its step reads (`Method.step_weights`), how much of the cache
(`Method.step_cache_bytes`), and its multiplications with both (`Method.step_products`, `Method.step_attention`). The
states of the gated-delta layers are read and written. Only full-attention layers have keys and values.
"""

from typing import NamedTuple

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.model.sizes import BF16, Widths, model_sizes
from pipo_core.recipes.methods import METHODS, MethodName


class Part(NamedTuple):
    """The least bytes that a part of a step moves, and its least operations: two, `·` and `+`, a product."""

    bytes: float
    operations: float


def step_parts(
    config: Qwen3_5TextConfig, method: MethodName, load: StepLoad, *, widths: Widths = BF16
) -> tuple[Part, Part]:
    """Return the two parts of a decode step: products with weights, and what is read of the sequences' caches.

    Args:
        config: the model's shape.
        method: name of the decoding method.
        load: batch, context and drafts of the step.
        widths: bytes of each weight, and of each key and value.
    """
    sizes, decoder = model_sizes(config, widths), METHOD_CLASSES[method]
    per_sequence = decoder.step_cache_bytes(sizes, load) + 2 * sizes.states
    return (
        Part(widths.weight * decoder.step_weights(sizes, load), 2 * load.batch * decoder.step_products(sizes, load)),
        Part(load.batch * per_sequence, 2 * load.batch * decoder.step_attention(sizes, load)),
    )


def step_bytes(config: Qwen3_5TextConfig, method: MethodName, load: StepLoad, *, widths: Widths = BF16) -> float:
    """Return the least number of bytes that one decode step moves (equation in the module's docstring)."""
    return sum(part.bytes for part in step_parts(config, method, load, widths=widths))


def kept_bytes(
    config: Qwen3_5TextConfig, method: MethodName, context: int, *, state_copies: int = 0, widths: Widths = BF16
) -> float:
    """Return the least bytes that a sequence keeps between steps: ``KV(positions) + (1 + copies) · states``.

    Args:
        config: the model's shape.
        method: name of the decoding method. It says how many tokens a position holds, and whether the MTP block has
            keys and values too.
        context: tokens of prompt and answer.
        state_copies: further copies of the recurrent states, as servers keep one a draft to roll back to.
        widths: bytes of each key and value.
    """
    sizes, spec = model_sizes(config, widths), METHODS[method]
    position = sizes.kv + (sizes.kv_mtp if spec.uses_mtp else 0)
    return position * context / spec.cache_width + (1 + state_copies) * sizes.states


def resident_bytes(config: Qwen3_5TextConfig, method: MethodName, *, widths: Widths = BF16) -> int:
    """Return the bytes of the weights that a method keeps in memory: backbone, embedding, LM head, and its own parts.

    Tied weights are there once, but for a quantised head: the embedding beside it stays as it was.
    """
    sizes, spec = model_sizes(config), METHODS[method]
    parts = {"mtp": sizes.mtp, "compressor": sizes.compressor, "confidence_head": sizes.confidence}
    shared = config.tie_word_embeddings and widths.weight == widths.element
    embedding = 0 if shared else sizes.head * widths.element  # as many weights as the head
    return (sizes.layers + sizes.head + sum(parts[part] for part in spec.needs)) * widths.weight + embedding
