"""Opening an engine on a checkpoint folder."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from pipo_core.engine.api import Engine
from pipo_core.engine.chat import load_tokenizer
from pipo_core.engine.memory import free_bytes, plan_memory
from pipo_core.engine.methods import open_method
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import MachineError
from pipo_core.model import load_checkpoint
from pipo_core.recipes.common import EngineSettings

EngineOpener = Callable[[Path, str, float | None, EngineSettings], Engine]
"""From a checkpoint folder, a method and its threshold (None where it has none) to an engine."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_engine(ckpt: Path, method: str, tau: float | None, settings: EngineSettings) -> TorchEngine:
    """Return the torch engine on a checkpoint.

    Args:
        ckpt: a checkpoint folder.
        method: ``regular`` or ``pipo``.
        tau: confidence threshold of ``pipo``; 0.95 where None.
        settings: rows at once, device, precision, threads, memory.

    Raises:
        CheckpointError: if the folder is not a readable checkpoint.
        MachineError: if the device is not there, or the batch does not fit its memory.
    """
    device = find_device(settings.device)
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        # It names kernels to install, which are for GPUs.
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    tokenizer = load_tokenizer(ckpt)
    model = load_checkpoint(ckpt, dtype=_DTYPES[precision], device=device)
    opened = open_method(method, model, tau)
    memory = plan_memory(
        model.config,
        _DTYPES[precision],
        with_mtp=opened.with_mtp,
        free=free_bytes(device),
        batch=settings.batch,
        chunk=settings.prefill_chunk,
        max_length=settings.max_length,
        memory_gib=settings.memory_gib,
    )
    return TorchEngine(
        opened,
        tokenizer,
        batch=settings.batch,
        prefill_chunk=settings.prefill_chunk,
        max_length=settings.max_length,
        memory=memory,
    )


def find_device(name: str) -> torch.device:
    """Return a device by its name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MachineError: if it is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise MachineError(f"there is no device {name!r}", hint="engine.device is auto, cpu, cuda or cuda:N")
    if not gpus:
        raise MachineError(f"device {name} was asked for, but PyTorch sees no GPU", hint="set engine.device=cpu")
    if int(number or 0) >= gpus:
        seen = "cuda:0 alone" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}"
        raise MachineError(f"device {name} was asked for, but PyTorch sees {seen}", hint="set engine.device=cuda:0")
    return torch.device(name)
