"""The configuration of a pair model as SGLang reads it."""

from pathlib import Path
from typing import Any

from sglang.srt.configs.qwen3_5 import Qwen3_5TextConfig
from typing_extensions import override

from pipo_core.chat import end_ids, load_tokenizer

_ATTENTION = "attention"
"""SGLang's word for layers of full attention."""


class PairConfig(Qwen3_5TextConfig):
    """Qwen3.5's, with the MTP layer as full-attention layer N behind the backbone's 0 to N - 1.

    The memory pools make room for N + 1 layers, while the backbone's own list of layers stays as it is.
    """

    @property
    @override
    def layers_block_type(self) -> list[str]:
        """The kinds of the backbone's layers; SGLang's own property knows only their interval."""
        kinds = getattr(self, "layer_types", None)
        if not kinds:
            regular: list[str] = super().layers_block_type
            return regular
        return [_ATTENTION if kind == "full_attention" else kind for kind in kinds]

    @property
    @override
    def full_attention_layer_ids(self) -> list[int]:
        """The layers that cache keys and values, the MTP layer included."""
        own = [number for number, kind in enumerate(self.layers_block_type) if kind == _ATTENTION]
        return [*own, self.num_hidden_layers]


def rotate_as_trained(config: Any) -> None:
    """Set the share of rotated dimensions to the one that the model was trained with, in place.

    transformers takes it from ``rope_parameters``, SGLang from the top level, and small models may have both.
    """
    config.partial_rotary_factor = config.rope_parameters.get("partial_rotary_factor", config.partial_rotary_factor)


def end_as_trained(config: Any, folder: Path) -> None:
    """Let answers end by every id that ends a text of this checkpoint (`pipo_core.chat.end_ids`), in place.

    SGLang knows the end of the configuration only, which is often that of a base model and never ends a turn.
    """
    if folder.is_dir():
        config.eos_token_id = sorted(end_ids(load_tokenizer(folder), folder))


def as_pair_config(config: Any) -> PairConfig:
    """Turn a text configuration that SGLang has read into a `PairConfig`, in place."""
    config.__class__ = PairConfig
    rotate_as_trained(config)
    if not getattr(config, "full_attention_interval", None):
        config.full_attention_interval = config.layers_block_type.index(_ATTENTION) + 1
    found: PairConfig = config
    return found
