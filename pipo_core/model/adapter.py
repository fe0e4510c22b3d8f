"""Adapters of the pair model on disk, in PEFT's layout: low-rank matrices, and the modules that trained in full."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from pipo_core.errors import CheckpointError
from pipo_core.model.checkpoint import load_checkpoint, start_compressor
from pipo_core.recipes.sft import Compressor

_WEIGHTS = "adapter_model.safetensors"


def load_adapted(base: Path, adapter: Path) -> PeftModel:
    """Return a base with its adapter beside it, in fp32 and in evaluation mode; merging the two changes no logits.

    Args:
        base: the checkpoint that the adapter was trained on.
        adapter: the adapter's folder.

    Raises:
        CheckpointError: if adapter and base do not fit each other.
    """
    names = adapter_weight_names(adapter)
    model = load_checkpoint(base, dtype=torch.float32)
    if any("compressor." in name for name in names):
        linear = any("compressor.linear." in name for name in names)
        start_compressor(model, base, Compressor(type="linear" if linear else "mlp"))
    try:
        adapted = PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{adapter} does not fit {base}: {first}") from error
    # PEFT leaves weights that do not match at their start; a merged model must not hold half an adapter.
    expected = set(get_peft_model_state_dict(adapted))
    if expected != names:
        odd = sorted(expected ^ names)
        raise CheckpointError(f"{adapter} does not fit {base}: {len(odd)} weights do not match, such as {odd[0]}")
    return adapted.eval()


def adapter_weight_names(adapter: Path) -> set[str]:
    """Return the names of an adapter's weights.

    Raises:
        CheckpointError: if their file is damaged.
    """
    try:
        with safe_open(adapter / _WEIGHTS, framework="pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{adapter / _WEIGHTS} is damaged or incomplete: {error}") from error
