"""How many bytes a decode step moves at least, computed from shapes alone.

At batch ``B`` and ``b`` bytes per weight::

    b · weights + B · (cache + 2 · states)

Each method states which weights its step reads (`Method.step_weights`) and how much of the cache
(`Method.step_cache_bytes`). The states of the gated-delta layers are read and written. Only full-attention layers have
keys and values.
"""

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.method import StepLoad
from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.model.sizes import model_sizes
from pipo_core.recipes.methods import MethodName


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
