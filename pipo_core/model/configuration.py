"""From the content of a ``config.json`` to a text configuration.

Rejects configurations that are too expensive to build, and values that no weight's shape would reveal. Sizes are
compared with the weights before memory is taken (`checkpoint.load_checkpoint`).
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

MAX_LAYERS = 256
"""Every layer is built without memory to learn its weights' shapes; Qwen3.5 has at most 64."""

_NOT_OURS = ("model_type", "transformers_version", "num_labels", "id2label", "label2id")
"""Keys that say nothing about a text model. transformers would build a dictionary of ``num_labels`` labels."""

_KEYS = frozenset(inspect.signature(Qwen3_5TextConfig).parameters) | {
    *("architectures", "dtype", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "use_cache"),
    *("full_attention_interval", "partial_rotary_factor", "rope_theta", "rope_scaling", "torch_dtype"),
    *("compressor_type", "pipo_base", "mamba_ssm_dtype", "output_gate_type", "attn_output_gate"),
}
"""Keys that say what a model is: Qwen3.5's and our own."""


def text_config(raw: Mapping[str, Any]) -> Qwen3_5TextConfig:
    """Return the configuration of a text model, built without a model.

    Args:
        raw: the keys of ``config.json``, those of a nested ``text_config`` at the top.

    Raises:
        ValueError: if a value makes no sense.
        Exception: of any other class, from the libraries that read most of the keys.
    """
    settings = {key: value for key, value in raw.items() if key not in _NOT_OURS and _describes_a_model(key, value)}
    layers = settings.get("num_hidden_layers", 1)
    if type(layers) is not int or not 0 < layers <= MAX_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers!r}, expected 1 to {MAX_LAYERS}")
    config = Qwen3_5TextConfig(**settings)
    problem = next(_problems(config), None)
    if problem is not None:
        raise ValueError(problem)
    return config


def _describes_a_model(key: str, value: Any) -> bool:
    """Return whether a key may reach transformers: one that we know, or a plain number or switch of another version.

    Others would choose how transformers computes: by ``attn_implementation`` a file could have it download and run a
    kernel. That is for the user to choose, never for a checkpoint.
    """
    return key in _KEYS or (isinstance(value, bool | int | float) and not key.startswith(("_", "use_")))


def _problems(config: Qwen3_5TextConfig) -> Iterator[str]:
    """Yield what is wrong with values that no weight's shape depends on, or that only divide one."""
    if not 0 <= _number(config.rms_norm_eps) < 1:
        yield f"rms_norm_eps is {config.rms_norm_eps!r}"
    rope = config.rope_parameters
    if not 1 <= _number(rope["rope_theta"]) < math.inf:
        yield f"rope_theta is {rope['rope_theta']!r}"
    if not 0 < _number(rope.get("partial_rotary_factor", 1.0)) <= 1:
        yield f"partial_rotary_factor is {rope['partial_rotary_factor']!r}"
    sections = rope.get("mrope_section", [11, 11, 10])
    if not isinstance(sections, list) or len(sections) != 3 or not all(type(size) is int for size in sections):
        yield f"mrope_section is {sections!r}"
    if len(config.layer_types) != config.num_hidden_layers:
        yield f"layer_types names {len(config.layer_types)} layers, num_hidden_layers is {config.num_hidden_layers}"
    if config.num_attention_heads % config.num_key_value_heads:
        yield f"{config.num_attention_heads} attention heads for {config.num_key_value_heads} of keys"
    if config.linear_num_value_heads % config.linear_num_key_heads:
        yield f"{config.linear_num_value_heads} linear heads for {config.linear_num_key_heads} of keys"
    if not isinstance(config.architectures or [], list):
        yield f"architectures is {config.architectures!r}"
    recorded = getattr(config, "pipo_base", None)
    if not isinstance(recorded, str | None):
        yield f"pipo_base is {recorded!r}"


def _number(value: object) -> float:
    """Return a number as it is, and NaN, for which every comparison is False, in place of anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
