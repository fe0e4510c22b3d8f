"""Adapters of the pair model on disk, in PEFT's layout: low-rank matrices, and the modules that trained in full.

Two spellings of the names exist. pipo's trainings write ``base_model.model.model.language_model.layers.*``, like
checkpoints. The authors' released adapters have ``base_model.model.model.layers.*``. Both are read.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipo_core.errors import CheckpointError
from pipo_core.files import read_object
from pipo_core.model.checkpoint import load_checkpoint, start_compressor
from pipo_core.recipes.sft import Compressor
from pipo_core.text import one_line

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_AUTHORS_PREFIX = re.compile(r"^base_model\.model\.model\.(?!language_model\.)")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]+")
_NAME_LISTS = ("target_modules", "modules_to_save")
_NUMBERS = ("r", "lora_alpha", "lora_dropout")
_UNREAD = (
    *("exclude_modules", "layers_pattern", "layers_to_transform", "layer_replication", "rank_pattern"),
    *("alpha_pattern", "target_parameters", "trainable_token_indices", "use_dora", "lora_bias"),
)
"""Fields that change what an adapter is and that no training of pair models sets."""


def load_adapted(base: Path, adapter: Path) -> PeftModel:
    """Return a base with its adapter beside it, in fp32 and in evaluation mode; merging the two changes no logits.

    Args:
        base: the checkpoint that the adapter was trained on.
        adapter: the adapter's folder.

    Raises:
        CheckpointError: if adapter and base do not fit each other, or the adapter is damaged.
    """
    config, weights = _read_config(adapter), read_adapter_weights(adapter)
    model = load_checkpoint(base, dtype=torch.float32)
    if any("compressor." in name for name in weights):
        linear = any("compressor.linear." in name for name in weights)
        start_compressor(model, base, Compressor(type="linear" if linear else "mlp"))
    try:
        adapted = get_peft_model(model, config)
        set_peft_model_state_dict(adapted, weights)
    except (RuntimeError, ValueError) as error:
        reasons = " ".join(line.strip() for line in str(error).splitlines())
        raise CheckpointError(f"{adapter} does not fit {base}: {one_line(reasons)}") from error
    # PEFT leaves weights that do not match at their start; a merged model must not hold half an adapter.
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if expected != weights.keys():
        odd = sorted(expected ^ weights.keys())
        raise CheckpointError(f"{adapter} does not fit {base}: {len(odd)} weights do not match, such as {odd[0]}")
    return adapted.eval()


def read_adapter_weights(adapter: Path) -> dict[str, torch.Tensor]:
    """Return an adapter's weights under the names that pipo's trainings give them.

    Raises:
        CheckpointError: if their file is damaged, or a weight holds NaN or infinite values.
    """
    file = adapter / WEIGHTS
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or incomplete: {one_line(error)}") from error
    broken = sorted(name for name, weight in found.items() if not torch.isfinite(weight).all())
    if broken:
        message = f"{file}: {len(broken)} weights with NaN or infinite values, such as {broken[0]}"
        raise CheckpointError(one_line(message))
    return {
        _AUTHORS_PREFIX.sub("base_model.model.model.language_model.", name): weight for name, weight in found.items()
    }


def _read_config(adapter: Path) -> LoraConfig:
    """Return an adapter's configuration.

    PEFT takes some fields as regular expressions, with which a file could make it hang, and multiplies by whatever the
    numbers are. So fields are checked before PEFT sees them.

    Raises:
        CheckpointError: naming the field that is not plain, not finite or not supported.
    """
    file = adapter / CONFIG
    content = read_object(file)
    if content.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type {content.get('peft_type')!r} is not LORA")
    for field in _NAME_LISTS:
        names = content.get(field) or []
        if not isinstance(names, list) or not all(isinstance(n, str) and _PLAIN_NAME.fullmatch(n) for n in names):
            raise CheckpointError(one_line(f"{file}: {field} must be a list of plain names"))
    for field in _NUMBERS:
        number = content.get(field, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise CheckpointError(one_line(f"{file}: {field} = {number!r} is not a finite number"))
    for field in _UNREAD:
        if content.get(field):
            raise CheckpointError(one_line(f"{file}: {field} is set, which pair models' adapters do not have"))
    known: dict[str, Any] = {field: content[field] for field in (*_NAME_LISTS, *_NUMBERS) if content.get(field)}
    try:
        return LoraConfig(use_rslora=bool(content.get("use_rslora")), task_type="CAUSAL_LM", **known)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: {one_line(error)}") from error
