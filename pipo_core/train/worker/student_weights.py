"""The student's weights at this moment, as a standalone checkpoint holds them."""

import re

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

_BESIDE = re.compile(r"\.(lora_\w+|original_module)\.")
"""In the names of weights that a merged model does not have."""


def standalone_weights(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return copies of a model's weights in host memory, adapters merged into them; the model stays as it is.

    Merging in place and back would round the weights of a base in bf16. As in `pipo merge`, the arithmetic is in fp32
    and the result is rounded once.

    Args:
        model: a pair model, or PEFT's wrapper around one, without the wrappers of several processes.
        dtype: number format of the copies.

    Returns:
        The weights by the names that a pair model's own have.
    """
    if not isinstance(model, PeftModel):
        return {name: weight.detach().to("cpu", dtype, copy=True) for name, weight in model.state_dict().items()}
    adapted: nn.Module = model.get_base_model()
    weights = {
        name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."): weight.detach().to("cpu", dtype)
        for name, weight in adapted.state_dict().items()
        if not _BESIDE.search(name)
    }
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            base = layer.get_base_layer().weight
            merged = base.detach().float() + layer.get_delta_weight("default").detach().float()
            weights[f"{name}.weight"] = merged.to("cpu", dtype)
    return weights
