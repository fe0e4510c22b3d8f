"""The layers' arithmetic: plain, or compiled for the machine.

A matrix times one vector is bound by the memory's bandwidth. On a CPU a stock product reaches half of it, and the
compiled `multiply_and_sum` nearly all. On a GPU the stock product is near the bound already; compiling fuses the many
small operations around it.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from pipo_core.decode.cache import FEW_SEQUENCES
from pipo_core.decode.layers import Product, attention_inputs, attention_outputs, delta_layer
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.quantisation import int8_parts

_logger = logging.getLogger(__name__)


class Kernels(NamedTuple):
    """The arithmetic of `layers` as it runs."""

    product: Product
    delta_layer: Callable[..., torch.Tensor]
    attention_inputs: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]
    attention_outputs: Callable[..., torch.Tensor]
    matrix: Product


def multiply_and_sum(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``x · Wᵀ``, ``[1, N]``, of one vector ``[1, K]``, summed in fp32: fast when compiled, and only then."""
    vector = x[0].float()
    vector = vector.as_strided(vector.shape, vector.stride())  # otherwise it is computed again for each sum
    parts = int8_parts(weight)
    if parts is not None:  # half of the bytes are read, and nothing is written in between
        numbers, scale = parts
        return ((numbers.float() * vector).sum(-1) * scale[:, 0].float()).to(x.dtype)[None]
    return (weight.float() * vector).sum(-1).to(x.dtype)[None]


def _compiled(function: Callable[..., Any], *, dynamic: bool | None = False) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=dynamic)


PLAIN = Kernels(F.linear, delta_layer, attention_inputs, attention_outputs, F.linear)
_ON_CPU = Kernels(
    multiply_and_sum,
    _compiled(delta_layer),
    _compiled(attention_inputs),
    _compiled(attention_outputs),
    _compiled(multiply_and_sum, dynamic=True),  # one kernel for heads of any size
)
_ON_GPU = Kernels(
    F.linear,
    _compiled(delta_layer, dynamic=None),  # one kernel for a single sequence, one for any number
    _compiled(attention_inputs, dynamic=None),
    _compiled(attention_outputs, dynamic=None),
    F.linear,
)


def kernels_for(model: Qwen3_5ForCausalPIPO, count: int) -> Kernels:
    """Return how a step of ``count`` sequences runs."""
    if not model.compiled_steps:
        return PLAIN
    if model.device.type == "cuda":
        return _ON_GPU if count <= FEW_SEQUENCES else PLAIN
    return _ON_CPU if count == 1 else PLAIN


def compile_steps(model: Qwen3_5ForCausalPIPO) -> None:
    """Let the model's decode steps of one sequence (on a GPU: of up to `FEW_SEQUENCES`) run compiled, if possible.

    Compiling needs a C++ compiler, on a GPU Triton. Without it a warning is logged and the plain form stays. The first
    steps take up to a minute, or a few seconds where the compiler's cache on disk has them.
    """
    norm = model.text_model.norm.weight
    # Models of several shapes and number formats may run in one process, each with kernels of its own.
    settings = torch._dynamo.config  # noqa: SLF001 - where PyTorch documents its settings
    settings.recompile_limit = max(settings.recompile_limit, 64)
    try:
        with torch.inference_mode():
            _ON_CPU.matrix(norm.new_zeros(1, 64), norm.new_zeros(32, 64))
    except (RuntimeError, OSError) as error:  # dynamo's errors are RuntimeErrors
        _logger.warning("steps run uncompiled, for this machine cannot compile them: %s", str(error).splitlines()[0])
        return
    model.compiled_steps = True
