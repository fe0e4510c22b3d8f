"""Opening an engine on a checkpoint folder."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.kernels import compile_steps
from pipo_core.engine.api import Engine
from pipo_core.engine.memory import free_bytes, plan_memory
from pipo_core.engine.methods import open_method
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import MachineError
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.frequent_tokens import read_draft_vocab
from pipo_core.recipes.common import EngineSettings

EngineOpener = Callable[..., Engine]
"""From a checkpoint folder, a method, its threshold (None where it has none) and settings to an engine."""

_LOG = logging.getLogger(__name__)
_FEW = 0.001
"""Share of a training set's tokens that a draft vocabulary may leave out without a word."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_engine(
    ckpt: Path, method: str, tau: float | None, settings: EngineSettings, *, acceptance: float | None = None
) -> TorchEngine:
    """Return the torch engine on a checkpoint.

    Args:
        ckpt: a checkpoint folder.
        method: ``regular``, ``mtp``, ``eagle`` or ``pipo``.
        tau: confidence threshold of ``pipo``; 0.95 where None.
        settings: rows at once, device, precision, threads, memory, draft vocabulary.
        acceptance: keep this share of the drafts by a coin.

    Raises:
        CheckpointError: if the folder is not a readable checkpoint, or has no draft vocabulary where one is asked for.
        MachineError: if the device is not there, or the batch does not fit its memory.
    """
    device, dtype = prepare(settings)
    tokenizer = load_tokenizer(ckpt)
    model = load_checkpoint(ckpt, dtype=dtype, device=device)
    asked = settings.draft_vocab is not None and method == "pipo"
    frequent = frequent_tokens(ckpt, settings.draft_vocab) if asked and settings.draft_vocab else ()
    return engine_on(model, tokenizer, method, tau, settings, by_frequency=frequent, acceptance=acceptance)


def frequent_tokens(ckpt: Path, size: int) -> list[int]:
    """Return the ids of a checkpoint's training set, most frequent first; warn if ``size`` leaves many tokens out.

    Raises:
        CheckpointError: if the checkpoint does not say.
    """
    frequent = read_draft_vocab(ckpt)
    beyond = frequent.share_beyond(size)
    if beyond > _FEW:
        _LOG.warning(
            "a draft vocabulary of %s leaves out %.1f %% of the training set's tokens, and the gate does not know: "
            "where one of them should follow, a kept draft is wrong",
            f"{size:,}",
            100 * beyond,
        )
    return frequent.ids


def prepare(settings: EngineSettings) -> tuple[torch.device, torch.dtype]:
    """Set what is set for the whole process; return the device and the number format of the weights.

    Raises:
        MachineError: if the device is not there.
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
    return device, _DTYPES[precision]


def engine_on(
    model: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerBase,
    method: str,
    tau: float | None,
    settings: EngineSettings,
    *,
    by_frequency: Iterable[int] = (),
    acceptance: float | None = None,
) -> TorchEngine:
    """Return an engine on a model that is loaded already.

    Args:
        model: the network; several engines may share it.
        tokenizer: the model's.
        method: see `open_engine`, as are ``tau`` and ``settings``.
        tau: confidence threshold.
        settings: rows at once, memory, draft vocabulary.
        by_frequency: ids, most frequent first, that a draft vocabulary is taken from.
        acceptance: fix the share of drafts kept, for measuring.

    Raises:
        MachineError: if the batch does not fit the memory.
    """
    if settings.compile:
        compile_steps(model)
    few = None
    if settings.draft_vocab is not None and method == "pipo":
        few = DraftVocab(model, settings.draft_vocab, by_frequency, end_ids(tokenizer))
    opened = open_method(method, model, tau, drafts=settings.drafts, draft_vocab=few, acceptance=acceptance)
    if settings.compile and model.device.type == "cuda":
        opened = opened.recorded()
    memory = plan_memory(
        model.config,
        model.lm_head.weight.dtype,
        with_mtp=opened.with_mtp,
        free=free_bytes(model.device),
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
