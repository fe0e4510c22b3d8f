"""The keyword with which transformers' layers take a cache: its versions give it different names."""

import inspect
from typing import Any

from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer

_NAMES = ("cache", "past_key_values")  # since transformers 5.24, and before
_KEYWORD = next(name for name in _NAMES if name in inspect.signature(Qwen3_5DecoderLayer.forward).parameters)


def cache_keyword(cache: object) -> dict[str, Any]:
    """Return ``cache`` as the keyword argument of a stock text model, decoder layer or mask function.

    Args:
        cache: a cache of transformers, one that answers the same calls, or None.
    """
    return {_KEYWORD: cache}
