"""How large a model's parts are, from its configuration alone: what a decode step must read, and a sequence keeps."""

from dataclasses import dataclass
from typing import NamedTuple

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig


class Widths(NamedTuple):
    """Bytes of a weight of a matrix, and of an element of keys, values and all that is not quantised."""

    weight: int = 2
    element: int = 2


BF16, FP32, INT8 = Widths(2, 2), Widths(4, 4), Widths(1, 2)


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of weights of a model's parts, and bytes of what a sequence keeps.

    Attributes:
        hidden: width of a hidden state.
        layers: the backbone's, without embedding and head.
        head: the LM head.
        compressor: the ``mlp`` form's where the configuration names none.
        mtp: the MTP block's.
        confidence: the confidence head's.
        kv: bytes of keys and values a position, of all full-attention layers of the backbone.
        kv_mtp: the same of the MTP block.
        attention: multiplications of one query with one position's keys and values, in all full-attention layers.
        attention_mtp: the same in the MTP block.
        states: bytes of the gated-delta layers' recurrent states (fp32) and convolution inputs.
    """

    hidden: int
    layers: int
    head: int
    compressor: int
    mtp: int
    confidence: int
    kv: int
    kv_mtp: int
    attention: int
    attention_mtp: int
    states: int


def model_sizes(config: Qwen3_5TextConfig, widths: Widths = BF16) -> ModelSizes:
    """Return the sizes of a shape's parts, if a key's or value's element has ``widths.element`` bytes."""
    h, inner, d = config.hidden_size, config.intermediate_size, config.head_dim
    query, keys = config.num_attention_heads * d, config.num_key_value_heads * d
    attention = h * (2 * query + 2 * keys) + query * h + 2 * d
    feed_forward = 3 * h * inner + 2 * h  # with the layer's two norms
    key_width = config.linear_num_key_heads * config.linear_key_head_dim
    value_heads = config.linear_num_value_heads
    value_width = value_heads * config.linear_value_head_dim
    channels = 2 * key_width + value_width
    kernel = config.linear_conv_kernel_dim
    delta = h * (channels + value_width + 2 * value_heads) + value_width * h
    delta += channels * kernel + 2 * value_heads + config.linear_value_head_dim
    full = sum(kind == "full_attention" for kind in config.layer_types)
    linear = len(config.layer_types) - full
    compressor = 2 * h * h + h if getattr(config, "compressor_type", "mlp") == "linear" else 6 * h * h + 3 * h
    return ModelSizes(
        hidden=h,
        layers=full * (attention + feed_forward) + linear * (delta + feed_forward) + h,
        head=config.vocab_size * h,
        compressor=compressor,
        mtp=2 * h * h + 3 * h + attention + feed_forward,
        confidence=2 * h * h + 3 * h,
        kv=full * 2 * keys * widths.element,
        kv_mtp=2 * keys * widths.element,
        attention=full * 2 * query,
        attention_mtp=2 * query,
        states=linear * (value_heads * config.linear_key_head_dim * config.linear_value_head_dim * 4)
        + linear * channels * kernel * widths.element,
    )
