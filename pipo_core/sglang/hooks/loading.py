"""Hooks where a checkpoint is recognised."""

from typing import Any

from pipo_core.sglang import ARCHITECTURE


def is_pair_config(config: Any) -> bool:
    """Return whether a model's configuration is a pair model's."""
    return ARCHITECTURE in (getattr(config, "architectures", None) or ())


def pair_config(config: Any, *_: Any, **__: Any) -> Any:
    """Give a pair checkpoint its configuration, and SGLang the class that its architecture names.

    Both are imported only now, so that a server of any other model never loads them.
    """
    if not is_pair_config(config):
        return None
    from sglang.srt.models.registry import ModelRegistry

    from pipo_core.sglang.config import as_pair_config
    from pipo_core.sglang.model import Qwen3_5ForCausalPIPO

    ModelRegistry.models[ARCHITECTURE] = Qwen3_5ForCausalPIPO
    return as_pair_config(config)
