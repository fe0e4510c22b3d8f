"""Checkpoint files: with `weight_files`, the only place that knows how weights and configurations lie on disk.

Layouts (all safetensors, single file or sharded with an index; pickles are never read):

``pipo``
    ``model.language_model.*``, ``compressor.*``, ``mtp.*``, ``confidence_head.*``, ``lm_head.weight`` when untied: the
    authors' checkpoints and ours.
``base``
    what ``Qwen/Qwen3.5-*`` holds: ``model.language_model.*`` and ``mtp.*``; the text configuration may be nested under
    ``text_config`` and ``model.visual.*`` may be there (it is dropped). Stock text-only saves (``model.layers.*``)
    load too. Loading a base gives a fresh PIPO start: the compressor sums, the confidence head is random.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import nn
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import CheckpointError
from pipo_core.files import new_folder, read_json, write_json
from pipo_core.model.configuration import text_config
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.weight_files import FLOATS, INDEX, Source, copy_weight, listed, locate_weights
from pipo_core.text import one_line

Layout = Literal["pipo", "base"]

PIPO_ARCHITECTURE = "Qwen3_5ForCausalPIPO"
BASE_ARCHITECTURE = "Qwen3_5ForCausalLM"
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
_SHARED_KEYS = ("tie_word_embeddings", "architectures", "compressor_type", "pipo_base")
"""Keys that count beside a nested text configuration."""

_HEADS = ("compressor.", "confidence_head.")
_logger = logging.getLogger(__name__)


def load_checkpoint(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    fresh_mtp: bool = False,
) -> Qwen3_5ForCausalPIPO:
    """Return the model of a checkpoint folder, in evaluation mode.

    Weights are copied block by block into their final place, so memory stays near the size of the model in ``dtype``.

    Args:
        path: a folder with ``config.json`` and safetensors weights, in any layout of this module.
        dtype: of all weights in memory.
        device: where the weights go.
        fresh_mtp: start the MTP block from random weights if the checkpoint has none.

    Raises:
        CheckpointError: if files are missing or damaged, or weights are missing or of the wrong shape; it names them.
    """
    folder = Path(path)
    config = load_config(folder)
    sources = locate_weights(folder)
    with torch.device("meta"):
        model = Qwen3_5ForCausalPIPO(config)
    wanted = dict(model.named_parameters())
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
        sources.pop("lm_head.weight", None)
    fresh = _fresh_parts(folder, config, wanted, sources, fresh_mtp=fresh_mtp)
    _refuse_mismatches(folder, {name: p for name, p in wanted.items() if not name.startswith(fresh)}, sources)
    unknown = sorted(set(sources) - set(wanted))
    if unknown:
        _logger.warning("%s: ignored weights that the model does not have: %s", folder, listed(unknown))

    sums: dict[str, torch.Tensor] = {}
    for name, parameter in wanted.items():
        target = torch.empty(parameter.shape, dtype=dtype, device=device)
        if name in sources:
            copy_weight(sources[name], target)
            sums[name] = target.sum()  # not finite if one number is not; far cheaper than to look at each
        _set_parameter(model, name, target)
    broken = [name for name, total in sums.items() if not torch.isfinite(total)]
    if broken:
        _logger.warning("%s: weights with NaN or infinite numbers: %s", folder, listed(broken))
    _materialise_buffers(model, config, torch.device(device))
    model.tie_weights()
    model.fresh_parts = tuple(part.removesuffix(".") for part in fresh)
    for part in model.fresh_parts:
        _initialise(model, part)
    model.eval()
    return model


def random_model(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Qwen3_5ForCausalPIPO:
    """Return a model of a folder's configuration with random weights, drawn from torch's generator.

    Raises:
        CheckpointError: if there is no valid configuration.
    """
    return random_weights(load_config(Path(path)), dtype=dtype, device=device)


def random_weights(
    config: Qwen3_5TextConfig, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Qwen3_5ForCausalPIPO:
    """Return a model of a configuration with random weights, drawn in place from the device's generator.

    No second copy of any weight is made, so memory stays at the size of the model in ``dtype``.
    """
    with torch.device("meta"):
        model = Qwen3_5ForCausalPIPO(config)
    for name, parameter in list(model.named_parameters()):
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            _set_parameter(model, name, torch.empty(parameter.shape, dtype=dtype, device=device))
    _materialise_buffers(model, config, torch.device(device))
    _initialise(model, "")
    model.tie_weights()
    return model


def load_config(folder: Path) -> Qwen3_5TextConfig:
    """Return the text configuration of a checkpoint folder, nested or flat.

    Raises:
        CheckpointError: if ``config.json`` is missing, damaged, or not of a Qwen3.5 model.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no config.json", hint="pipo download --list")
    raw = read_json(file)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file} does not hold a JSON object")
    nested = raw.get("text_config")
    if isinstance(nested, dict):
        shared = {key: raw[key] for key in _SHARED_KEYS if key in raw}
        raw = {**nested, **shared}
    if raw.get("model_type") not in ("qwen3_5_text", "qwen3_5"):
        raise CheckpointError(
            one_line(f"{file} describes a {raw.get('model_type')!r} model; PIPO runs on Qwen3.5 dense text models"),
            hint="pipo download qwen3.5-4b",
        )
    try:
        return text_config(raw)
    except Exception as error:  # a strange value fails in whichever library meets it first
        raise CheckpointError(f"{file} is not a valid Qwen3.5 configuration: {one_line(error)}") from error


def save_checkpoint(
    model: Qwen3_5ForCausalPIPO,
    path: str | Path,
    *,
    layout: Layout = "pipo",
    tokenizer_from: str | Path | None = None,
    base: str | None = None,
) -> Path:
    """Write a standalone checkpoint folder atomically and return its path.

    Args:
        model: what to write; its dtype is kept.
        path: the folder; it appears complete or not at all.
        layout: ``pipo``, or ``base`` for the uncompressed model and its MTP head alone.
        tokenizer_from: a folder whose tokenizer and chat template are copied along.
        base: name of the base model, recorded as ``pipo_base``; the base's accuracy is measured on it.
    """
    final = Path(path)
    with new_folder(final) as folder:
        write_weights(model, folder, layout=layout, base=base)
        if tokenizer_from is not None:
            copy_tokenizer(Path(tokenizer_from), folder)
    return final


def write_weights(
    model: Qwen3_5ForCausalPIPO,
    folder: Path,
    *,
    layout: Layout,
    state: Mapping[str, torch.Tensor] | None = None,
    base: str | None = None,
) -> None:
    """Write ``config.json`` and the weights into an existing folder (shards of at most 5 GB)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(state if state is not None else model.state_dict())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    if layout == "base":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEADS)}
    shards = split_torch_state_dict_into_shards(tensors, max_shard_size=_SHARD_SIZE)
    for file, names in shards.filename_to_tensors.items():
        save_file({name: tensors[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
    if shards.is_sharded:
        write_json(folder / INDEX, {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename})
    write_json(folder / "config.json", _config_json(model, tensors, layout, base))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files and chat template from one folder to another.

    Raises:
        CheckpointError: if the source has no tokenizer.
    """
    if not (source / "tokenizer.json").is_file():
        raise CheckpointError(f"{source} has no tokenizer.json")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _fresh_parts(
    folder: Path,
    config: Qwen3_5TextConfig,
    wanted: Mapping[str, nn.Parameter],
    sources: Mapping[str, Source],
    *,
    fresh_mtp: bool,
) -> tuple[str, ...]:
    """Return the prefixes of parts that start anew because the checkpoint, a base, has none of their weights."""
    fresh: tuple[str, ...] = ()
    if PIPO_ARCHITECTURE not in (config.architectures or []):
        fresh = tuple(part for part in _HEADS if not any(name.startswith(part) for name in sources))
    if not any(name.startswith("mtp.") for name in sources):
        if not fresh_mtp:
            raise CheckpointError(
                f"{folder} has no mtp.* weights, and PIPO needs the pretrained MTP head",
                hint="use a checkpoint with its MTP head, or ask for a fresh one (fresh_mtp=True)",
            )
        fresh += ("mtp.",)
    return fresh


def _refuse_mismatches(folder: Path, wanted: Mapping[str, nn.Parameter], sources: Mapping[str, Source]) -> None:
    missing = sorted(set(wanted) - set(sources))
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} weights: {listed(missing)}")
    strange = [f"{name} is stored as {sources[name].dtype}" for name in wanted if sources[name].dtype not in FLOATS]
    if strange:
        raise CheckpointError(
            f"{folder} has {len(strange)} weights that are no plain numbers: {listed(strange)}",
            hint=f"pipo reads {', '.join(FLOATS)}; take the checkpoint before quantization",
        )
    wrong = [
        f"{name} is {list(sources[name].shape)}, the configuration needs {list(parameter.shape)}"
        for name, parameter in wanted.items()
        if sources[name].shape != tuple(parameter.shape)
    ]
    if wrong:
        raise CheckpointError(f"{folder} has {len(wrong)} weights of the wrong shape: {listed(wrong)}")


# ---------------------------------------------------------------------- building


def _set_parameter(model: nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, nn.Parameter(value))


def _materialise_buffers(model: nn.Module, config: Qwen3_5TextConfig, device: torch.device) -> None:
    """Rebuild the rotary tables, which are computed from the configuration and have no weights on disk."""
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            owner, _, attribute = name.rpartition(".")
            rebuilt = type(module)(config).to(device)
            setattr(model.get_submodule(owner), attribute, rebuilt)


def _initialise(model: Qwen3_5ForCausalPIPO, part: str) -> None:
    """Give a fresh part its starting weights: every module by transformers' rule, then containers by our own."""
    modules = list(model.get_submodule(part).modules())
    for module in reversed(modules):
        model._init_weights(module)


# ---------------------------------------------------------------------- writing


def _config_json(
    model: Qwen3_5ForCausalPIPO, tensors: Mapping[str, torch.Tensor], layout: Layout, base: str | None
) -> dict[str, Any]:
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
    """Return ``n`` if every n-th layer, and no other, is a full-attention layer."""
    if "full_attention" not in layer_types:
        return None
    interval = layer_types.index("full_attention") + 1
    regular = all((kind == "full_attention") == ((i + 1) % interval == 0) for i, kind in enumerate(layer_types))
    return interval if regular else None
