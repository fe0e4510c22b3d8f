"""The compressor that a training starts with."""

from pathlib import Path

import torch

from pipo_core.errors import CheckpointError
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.checkpoint import PIPO_ARCHITECTURE, load_config
from pipo_core.model.compressor import COMPRESSORS
from pipo_core.recipes.sft import Compressor


def start_compressor(model: Qwen3_5ForCausalPIPO, folder: Path, wanted: Compressor) -> None:
    """Give a model that was loaded from a base the compressor that the recipe asks for; keep a trained one.

    Args:
        model: as `load_checkpoint` returned it.
        folder: where it was loaded from.
        wanted: type and start.

    Raises:
        CheckpointError: if the checkpoint in ``folder`` has a trained compressor of another type.
    """
    if PIPO_ARCHITECTURE in (load_config(folder).architectures or []):
        present = getattr(model.config, "compressor_type", "mlp")
        if present != wanted.type:
            raise CheckpointError(
                f"{folder} has a trained compressor of type {present}, not {wanted.type}",
                hint=f"give compressor.type={present}",
            )
        return
    model.config.compressor_type = wanted.type
    model.compressor = COMPRESSORS[wanted.type](model.config.hidden_size).to(model.device, model.dtype)
    if wanted.start == "sum":
        model.compressor.start_as_sum()
        return
    for module in model.compressor.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=model.config.initializer_range)
            torch.nn.init.zeros_(module.bias)
