"""Loads checkpoints: configuration, weights, and random weights for the parts that a checkpoint lacks.

The layouts are described in `weight_files`; `writing` writes them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import CheckpointError
from pipo_core.files import read_json
from pipo_core.model.compressor import COMPRESSORS
from pipo_core.model.configuration import text_config
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.weight_files import (
    FLOATS,
    PAIR_PARTS,
    PIPO_ARCHITECTURE,
    WeightSource,
    copy_weight,
    listed,
    locate_weights,
)
from pipo_core.recipes.sft import Compressor
from pipo_core.text import one_line

_CONFIG = "config.json"
_SHARED_KEYS = ("tie_word_embeddings", "architectures", "compressor_type", "pipo_base")
"""Keys that a file may hold beside a nested text configuration and that count for it."""

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
        path: a folder with ``config.json`` and safetensors weights, in any layout of `weight_files`.
        dtype: of all weights in memory.
        device: where the weights go.
        fresh_mtp: start the MTP block from random weights if the checkpoint has none.

    Raises:
        CheckpointError: if files are missing or damaged, or weights are missing or of the wrong shape; it names them.
    """
    folder = Path(path)
    config = load_config(folder)
    sources = locate_weights(folder)
    model = empty_model(config, origin=folder / _CONFIG)
    wanted = dict(model.named_parameters())
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
        sources.pop("lm_head.weight", None)
    fresh = _fresh_parts(folder, config, sources, fresh_mtp=fresh_mtp)
    _refuse_mismatches(folder, {name: p for name, p in wanted.items() if not name.startswith(fresh)}, sources)
    unknown = sorted(set(sources) - set(wanted))
    if unknown:
        _logger.warning("%s: ignored weights that the model does not have: %s", folder, listed(unknown))

    sums: dict[str, torch.Tensor] = {}
    for name, parameter in wanted.items():
        target = torch.empty(parameter.shape, dtype=dtype, device=device)
        if name in sources:
            copy_weight(sources[name], target)
            # The sum is NaN or infinite if one number is, and costs far less than a look at each.
            sums[name] = target.sum()
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

    Args:
        path: a folder with ``config.json``; its weights are not read.
        dtype: of all weights.
        device: where the weights go.

    Raises:
        CheckpointError: if there is no valid configuration.
    """
    folder = Path(path)
    config = load_config(folder)
    return _with_random_weights(empty_model(config, origin=folder / _CONFIG), config, dtype, torch.device(device))


def random_weights(
    config: Qwen3_5TextConfig, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Qwen3_5ForCausalPIPO:
    """Return a model of a configuration with random weights, drawn in place from the device's generator.

    No second copy of any weight is made, so memory stays at the size of the model in ``dtype``.

    Args:
        config: of the model.
        dtype: of all weights.
        device: where the weights go.
    """
    return _with_random_weights(empty_model(config), config, dtype, torch.device(device))


def start_compressor(model: Qwen3_5ForCausalPIPO, folder: Path, wanted: Compressor) -> None:
    """Give a model of a base checkpoint the compressor that a recipe asks for; keep the one of a pair checkpoint.

    Args:
        model: as `load_checkpoint` or `random_model` returned it.
        folder: where it was loaded from.
        wanted: type and start.

    Raises:
        CheckpointError: if the checkpoint has a trained compressor of another type.
    """
    config = model.config
    if PIPO_ARCHITECTURE in (config.architectures or []):
        present = getattr(config, "compressor_type", "mlp")
        if present != wanted.type:
            raise CheckpointError(
                f"{folder} has a trained compressor of type {present}, not {wanted.type}",
                hint=f"give compressor.type={present}",
            )
        return
    config.compressor_type = wanted.type
    model.compressor = COMPRESSORS[wanted.type](config.hidden_size).to(model.device, model.dtype)
    if wanted.start == "sum":
        model.compressor.start_as_sum()
        return
    for module in model.compressor.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=config.initializer_range)
            nn.init.zeros_(module.bias)


def load_config(folder: Path) -> Qwen3_5TextConfig:
    """Return the text configuration of a checkpoint folder, nested or flat.

    Sizes that do not fit each other are refused where the model is built.

    Args:
        folder: it holds ``config.json``.

    Raises:
        CheckpointError: if ``config.json`` is missing, damaged, or not of a Qwen3.5 model.
    """
    file = folder / _CONFIG
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
        raise _invalid_config(file, error) from error


def empty_model(config: Qwen3_5TextConfig, *, origin: str | Path = "this") -> Qwen3_5ForCausalPIPO:
    """Return a model that knows the shapes of its weights and holds none (torch's meta device).

    Args:
        config: of the model.
        origin: where the configuration is from, for the error.

    Raises:
        CheckpointError: if no model can be built from the configuration.
    """
    try:
        with torch.device("meta"):
            return Qwen3_5ForCausalPIPO(config)
    except Exception as error:  # sizes that do not fit each other fail in whichever layer meets them first
        raise _invalid_config(origin, error) from error


def _invalid_config(origin: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{origin} is not a valid Qwen3.5 configuration: {one_line(error)}")


def _fresh_parts(
    folder: Path, config: Qwen3_5TextConfig, sources: Mapping[str, WeightSource], *, fresh_mtp: bool
) -> tuple[str, ...]:
    """Return the name prefixes of the parts that start at random because the checkpoint has none of their weights.

    Compressor and confidence head may be absent from a base only, the MTP block only if ``fresh_mtp`` asks for it.

    Raises:
        CheckpointError: if the MTP block is absent and ``fresh_mtp`` is False.
    """
    fresh: tuple[str, ...] = ()
    if PIPO_ARCHITECTURE not in (config.architectures or []):
        fresh = tuple(part for part in PAIR_PARTS if not any(name.startswith(part) for name in sources))
    if not any(name.startswith("mtp.") for name in sources):
        if not fresh_mtp:
            raise CheckpointError(
                f"{folder} has no mtp.* weights, and PIPO needs the pretrained MTP head",
                hint="use a checkpoint with its MTP head, or ask for a fresh one (fresh_mtp=True)",
            )
        fresh += ("mtp.",)
    return fresh


def _refuse_mismatches(folder: Path, wanted: Mapping[str, nn.Parameter], sources: Mapping[str, WeightSource]) -> None:
    """Raise unless the checkpoint holds every wanted weight, in its shape and in a number format that pipo reads.

    Raises:
        CheckpointError: naming the weights.
    """
    missing = sorted(set(wanted) - set(sources))
    if missing:
        raise CheckpointError(f"{folder} lacks {len(missing)} weights: {listed(missing)}")
    strange = [f"{name} is stored as {sources[name].dtype}" for name in wanted if sources[name].dtype not in FLOATS]
    if strange:
        raise CheckpointError(
            f"{folder} has {len(strange)} weights in a number format that pipo does not read: {listed(strange)}",
            hint=f"pipo reads {', '.join(FLOATS)}; take the checkpoint before quantization",
        )
    wrong = [
        f"{name} is {list(sources[name].shape)}, the configuration needs {list(parameter.shape)}"
        for name, parameter in wanted.items()
        if sources[name].shape != tuple(parameter.shape)
    ]
    if wrong:
        raise CheckpointError(f"{folder} has {len(wrong)} weights of the wrong shape: {listed(wrong)}")


# ---------------------------------------------------------------------- from an empty model to one with weights


def _with_random_weights(
    model: Qwen3_5ForCausalPIPO, config: Qwen3_5TextConfig, dtype: torch.dtype, device: torch.device
) -> Qwen3_5ForCausalPIPO:
    """Return an empty model with random weights in place."""
    for name, parameter in list(model.named_parameters()):
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            _set_parameter(model, name, torch.empty(parameter.shape, dtype=dtype, device=device))
    _materialise_buffers(model, config, device)
    _initialise(model, "")
    model.tie_weights()
    return model


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
    """Give a part its starting weights: first every module by transformers' rule, then its containers by our own."""
    modules = list(model.get_submodule(part).modules())
    for module in reversed(modules):
        model._init_weights(module)  # noqa: SLF001 - transformers names its rule so
