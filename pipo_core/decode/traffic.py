"""What a decode step moves and multiplies at least, and what a sequence keeps, computed from shapes alone.

At batch ``B`` and ``b`` bytes per weight a step moves::

    b · weights + B · (cache + 2 · states)

Each method states which weights its step reads (`Method.step_weights`), how much of the cache
(`Method.step_cache_bytes`), and its multiplications (`Method.step_products`). The states of the gated-delta layers are
read and written. Only full-attention layers have keys and values.
"""

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.model.sizes import model_sizes
from pipo_core.recipes.methods import METHODS, MethodName


def step_bytes(config: Qwen3_5TextConfig, method: MethodName, load: StepLoad, *, weight_bytes: int = 2) -> float:
    """Return the least number of bytes that one decode step moves (equation in the module's docstring).

    Args:
        config: the model's shape.
        method: name of the decoding method.
        load: batch, context and drafts of the step.
        weight_bytes: bytes of each weight, key and value.
    """
    sizes, decoder = model_sizes(config, weight_bytes), METHOD_CLASSES[method]
    per_sequence = decoder.step_cache_bytes(sizes, load) + 2 * sizes.states
    return weight_bytes * decoder.step_weights(sizes, load) + load.batch * per_sequence


def step_operations(config: Qwen3_5TextConfig, method: MethodName, load: StepLoad) -> float:
    """Return the least operations of one decode step: two, one multiplication and one addition, a product."""
    return 2 * load.batch * METHOD_CLASSES[method].step_products(model_sizes(config), load)


def kept_bytes(
    config: Qwen3_5TextConfig, method: MethodName, context: int, *, state_copies: int = 0, weight_bytes: int = 2
) -> float:
    """Return the least bytes that a sequence keeps between steps: ``KV(positions) + (1 + copies) · states``.

    Args:
        config: the model's shape.
        method: name of the decoding method. It says how many tokens a position holds, and whether the MTP block has
            keys and values too.
        context: tokens of prompt and answer.
        state_copies: further copies of the recurrent states, as servers keep one a draft to roll back to.
        weight_bytes: bytes of each key and value.
    """
    sizes, spec = model_sizes(config, weight_bytes), METHODS[method]
    position = sizes.kv + (sizes.kv_mtp if spec.uses_mtp else 0)
    return position * context / spec.cache_width + (1 + state_copies) * sizes.states


def resident_weights(config: Qwen3_5TextConfig, method: MethodName) -> int:
    """Return the weights that a method keeps in memory: backbone, embedding, LM head, and the parts that it uses."""
    sizes, spec = model_sizes(config), METHODS[method]
    parts = {"mtp": sizes.mtp, "compressor": sizes.compressor, "confidence_head": sizes.confidence}
    embedding = 0 if config.tie_word_embeddings else sizes.head  # both are as large
    return sizes.layers + sizes.head + embedding + sum(parts[part] for part in spec.needs)
