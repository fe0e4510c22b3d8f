"""Writes checkpoints: weights, configuration and tokenizer, in the layouts of `weight_files`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5PreTrainedModel

from pipo_core.errors import CheckpointError
from pipo_core.files import new_folder, read_object, write_json
from pipo_core.model.weight_files import BASE_ARCHITECTURE, INDEX, PAIR_PARTS, PIPO_ARCHITECTURE, Layout

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)

_SHARD_SIZE = "5GB"


def save_checkpoint(
    model: Qwen3_5PreTrainedModel,
    path: str | Path,
    *,
    layout: Layout = "pipo",
    tokenizer_from: str | Path | None = None,
    base: str | None = None,
) -> Path:
    """Write a standalone checkpoint folder atomically and return its path.

    Args:
        model: a pair model; its dtype is kept.
        path: the folder; it appears complete or not at all.
        layout: ``pipo``, or ``base`` for the uncompressed model and its MTP head alone.
        tokenizer_from: a folder whose tokenizer and chat template are copied along.
        base: name of the base model, recorded as ``pipo_base``; the base's accuracy is measured on it.

    Returns:
        ``path``.

    Raises:
        CheckpointError: if ``tokenizer_from`` has no tokenizer.
    """
    final = Path(path)
    with new_folder(final) as folder:
        write_weights(model, folder, layout=layout, base=base)
        if tokenizer_from is not None:
            copy_tokenizer(Path(tokenizer_from), folder)
    return final


def write_weights(
    model: Qwen3_5PreTrainedModel,
    folder: Path,
    *,
    layout: Layout,
    state: Mapping[str, torch.Tensor] | None = None,
    base: str | None = None,
) -> None:
    """Write ``config.json`` and the weights into a folder, in shards of at most 5 GB.

    Args:
        model: a pair model, for its configuration and, without ``state``, its weights.
        folder: where they go; it is made if it is absent.
        layout: ``pipo`` or ``base``.
        state: weights to write in place of the model's own.
        base: name of the base model, recorded as ``pipo_base``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(state if state is not None else model.state_dict())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    if layout == "base":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(PAIR_PARTS)}
    shards = split_torch_state_dict_into_shards(tensors, max_shard_size=_SHARD_SIZE)
    for file, names in shards.filename_to_tensors.items():
        save_file({name: tensors[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
    if shards.is_sharded:
        write_json(folder / INDEX, {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename})
    write_json(folder / "config.json", _config_json(model, tensors, layout, base))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and chat template from one folder to another.

    The copy names the class that reads `tokenizer.json` as it is. Under the hub's name for Qwen3.5's, `Qwen2Tokenizer`,
    stock loaders would split texts by Qwen2's pattern, which parts letters from their combining marks.

    Raises:
        CheckpointError: if the source has no tokenizer.
    """
    if not (source / "tokenizer.json").is_file():
        raise CheckpointError(f"{source} has no tokenizer.json")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = target / "tokenizer_config.json"
    if config.is_file():
        content = {key: value for key, value in read_object(config).items() if key != "auto_map"}
        write_json(config, {**content, "tokenizer_class": "PreTrainedTokenizerFast"})


def _config_json(
    model: Qwen3_5PreTrainedModel, tensors: Mapping[str, torch.Tensor], layout: Layout, base: str | None
) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    content: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    content["architectures"] = [PIPO_ARCHITECTURE if layout == "pipo" else BASE_ARCHITECTURE]
    content["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    content["mtp_num_hidden_layers"] = 1
    if layout == "base":
        content.pop("compressor_type", None)
    else:
        content["compressor_type"] = getattr(model.config, "compressor_type", "mlp")
    interval = _full_attention_interval(model.config.layer_types)
    if interval is not None:  # transformers drops the key on saving, and SGLang needs it
        content["full_attention_interval"] = interval
    recorded = base or getattr(model.config, "pipo_base", None)
    if recorded is not None:
        content["pipo_base"] = recorded
    return content


def _full_attention_interval(layer_types: list[str]) -> int | None:
    """Return ``n`` if every n-th layer, and no other, is a full-attention layer; None otherwise."""
    if "full_attention" not in layer_types:
        return None
    interval = layer_types.index("full_attention") + 1
    regular = all((kind == "full_attention") == ((i + 1) % interval == 0) for i, kind in enumerate(layer_types))
    return interval if regular else None
