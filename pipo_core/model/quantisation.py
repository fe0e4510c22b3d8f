"""Matrices in 8 bits, by torchao: one scale for each row, products in the number format of the activations.

The matrices of the layers, the compressor, the MTP block and the LM head are stored in int8. Embeddings, norms, the
convolutions, the confidence head and the small matrices that decide how a recurrent state decays stay as they are.
"""

import torch
from torch import nn

from pipo_core.errors import MachineError
from pipo_core.machine import missing_package
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO

_KEPT = ("confidence_head", "in_proj_a", "in_proj_b")
"""Parts of the names of modules that stay as they are."""


def quantise(model: Qwen3_5ForCausalPIPO) -> None:
    """Store a model's matrices in int8, in place.

    An LM head that is tied to the embeddings becomes a matrix of its own: the embeddings stay as they are.

    Raises:
        MachineError: if torchao is not installed, or makes tensors of another form than those that were tested.
    """
    lack = missing_package("torchao", "engine.quantization needs torchao", "int8")
    if lack is not None:
        raise lack
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def wanted(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not any(part in name for part in _KEPT)

    quantize_(model, Int8WeightOnlyConfig(), filter_fn=wanted)
    if int8_parts(model.lm_head.weight) is None:
        raise MachineError("this release of torchao makes other tensors", hint="pip install torchao==0.18.0")


def int8_parts(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a quantised matrix as int8 numbers ``[N, K]`` and scales ``[N, 1]``; None for any other one."""
    if not hasattr(weight, "qdata"):
        return None
    numbers: torch.Tensor = weight.qdata
    scale: torch.Tensor = weight.scale  # type: ignore[attr-defined]  # torchao's tensor has both
    return numbers, scale
