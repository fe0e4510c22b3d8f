"""Opens torch engines: on checkpoint folders, on random weights, on a loaded model."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.kernels import compile_steps
from pipo_core.decode.pair import PairMethod
from pipo_core.decode.registry import open_method
from pipo_core.engine.memory import plan_memory
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import MachineError, UsageError
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.free_memory import free_bytes
from pipo_core.model.frequent_tokens import read_draft_vocab
from pipo_core.model.quantisation import quantise
from pipo_core.model.shapes import random_shape_model
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

_LOG = logging.getLogger(__name__)
_FEW = 0.001
"""Share of a training set's tokens that a draft vocabulary may leave out without a warning, if no gate knows of it."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchOpener:
    """Opens engines in this process; engines of one checkpoint or shape share its weights."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[Any, ...], Qwen3_5ForCausalPIPO] = {}

    def open(self, source: Path | str | None, decoding: Decoding, settings: TorchSettings) -> TorchEngine:
        """Return an engine.

        Args:
            source: a checkpoint folder, or the name of a published shape for random weights.
            decoding: the method with its options.
            settings: the engine's.

        Raises:
            UsageError: for an unknown shape, or an option that the method does not have.
            CheckpointError: if the folder is not a readable checkpoint, or lacks the token counts that a draft
                vocabulary needs.
            MachineError: if the device does not exist, the batch does not fit its memory, or a library is missing.
        """
        if source is None:
            raise UsageError("the torch engine needs a checkpoint")
        device, dtype = prepare(settings)
        # Random weights use the tiny world's tokenizer. It knows few of their ids; the others decode to no text.
        tokenizer = load_tokenizer(source if isinstance(source, Path) else bundled_model("tiny-student"))
        key = (source, device, dtype, settings.quantization)
        if key not in self._loaded:
            self._loaded[key] = (
                load_checkpoint(source, dtype=dtype, device=device)
                if isinstance(source, Path)
                else random_shape_model(source, dtype=dtype, device=device)
            )
            if settings.quantization is not None:
                quantise(self._loaded[key])
        if settings.quantization is not None and not settings.compile:
            _LOG.warning("int8 without engine.compile is slower than bf16: every product unpacks its matrix first")
        model = self._loaded[key]
        size = decoding.draft_vocab
        by_frequency: Iterable[int] = ()
        if size is not None:  # with random weights there are no counts, so any order does
            by_frequency = frequent_tokens(source, size) if isinstance(source, Path) else range(model.config.vocab_size)
        ends = end_ids(tokenizer, source if isinstance(source, Path) else None)
        return engine_on(model, tokenizer, decoding, settings, by_frequency=by_frequency, ends=ends)

    def check(self, settings: TorchSettings) -> None:
        """Check that the device exists, and that quantised weights are a CPU's.

        Raises:
            MachineError: if not.
        """
        _check_device(settings)


def engine_on(
    model: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerBase,
    decoding: Decoding,
    settings: TorchSettings,
    *,
    by_frequency: Iterable[int] = (),
    ends: frozenset[int] | None = None,
) -> TorchEngine:
    """Return an engine on a loaded model.

    Args:
        model: the network; several engines may share it.
        tokenizer: the model's.
        decoding: the method with its options.
        settings: the engine's.
        by_frequency: token ids, most frequent first, of which a draft vocabulary takes the first.
        ends: the ids that end a text; None for those of the tokenizer.

    Raises:
        UsageError: for an option that the method does not have, or more tokens than the model has positions.
        CheckpointError: if the model lacks parts that the method needs.
        MachineError: if the batch does not fit the memory.
    """
    positions = int(model.config.max_position_embeddings)
    if settings.max_length is not None and settings.max_length > positions:
        raise UsageError(f"max_length is {settings.max_length:,}, and the model was made for {positions:,} positions")
    if settings.compile:
        compile_steps(model)
    ends = end_ids(tokenizer) if ends is None else ends
    size = decoding.draft_vocab
    method = open_method(
        decoding.method,
        model,
        int(tokenizer.pad_token_id),
        tau=decoding.tau,
        acceptance=decoding.acceptance,
        draft_vocab=None if size is None else DraftVocab(model, size, by_frequency, ends),
        drafts=decoding.drafts,
    )
    if settings.compile and model.device.type == "cuda":
        method = method.recorded()
    memory = plan_memory(
        model.config,
        model.lm_head.weight.dtype,
        with_mtp=method.has_mtp_cache,
        free=free_bytes(model.device),
        batch=settings.batch,
        chunk=settings.prefill_chunk,
        width=method.spec.cache_width,
        max_length=settings.max_length,
        memory_gib=settings.memory_gib,
    )
    return TorchEngine(
        method,
        tokenizer,
        batch=settings.batch,
        prefill_chunk=settings.prefill_chunk,
        max_length=settings.max_length,
        memory=memory,
        ends=ends,
    )


def student_engine(
    model: Qwen3_5ForCausalPIPO,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tau: float,
    batch: int,
    max_length: int,
    sample_rejected: bool = True,
) -> TorchEngine:
    """Return an engine on a pair model in training.

    It plans no memory, because the trainer already holds the memory that it will need.

    Args:
        model: the student.
        tokenizer: the student's.
        tau: confidence threshold.
        batch: the most sequences that run together.
        max_length: the most tokens of prompt and budget together.
        sample_rejected: whether records hold rejected drafts, too.
    """
    method = PairMethod(model, int(tokenizer.pad_token_id), tau=tau, sample_rejected=sample_rejected)
    return TorchEngine(method, tokenizer, batch=batch, max_length=max_length)


def frequent_tokens(ckpt: Path, size: int) -> list[int]:
    """Return the token ids of a checkpoint's training set, most frequent first.

    Warns if ``size`` leaves many out and the gate has not learned to reject drafts where one of them should follow.

    Raises:
        CheckpointError: if the checkpoint has no token counts.
    """
    frequent = read_draft_vocab(ckpt)
    beyond = frequent.share_beyond(size)
    if beyond > _FEW and (frequent.gate is None or frequent.gate > size):
        _LOG.warning(
            "a draft vocabulary of %s leaves out %.1f %% of the training set's tokens; where one of them should "
            "follow, a kept draft is wrong, and the gate was not trained to know: pipo distill teaches it that with "
            "tuning.method=gate draft_vocab=%s",
            f"{size:,}",
            100 * beyond,
            size,
        )
    return frequent.ids


def prepare(settings: TorchSettings) -> tuple[torch.device, torch.dtype]:
    """Set the number of threads of this process, and return the device and number format of the weights.

    Raises:
        MachineError: if the device does not exist.
    """
    device = _check_device(settings)
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        # It recommends installing kernels that are for GPUs only.
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    return device, _DTYPES[precision]


def _check_device(settings: TorchSettings) -> torch.device:
    """Return the device of an engine's settings.

    Raises:
        MachineError: if it does not exist, or does not run quantised weights.
    """
    device = find_device(settings.device)
    if settings.quantization is not None and device.type != "cpu":
        raise MachineError(
            f"engine.quantization={settings.quantization} is for CPUs, and the device is {device}",
            hint="engine.device=cpu; on a GPU: pipo serve --engine sglang -- --quantization fp8",
        )
    return device


def find_device(name: str) -> torch.device:
    """Return a device by its name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MachineError: if it does not exist.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise MachineError(f"there is no device {name!r}", hint="the device is auto, cpu, cuda or cuda:N")
    if not gpus:
        raise MachineError(f"device {name} was asked for, but PyTorch sees no GPU", hint="choose cpu as the device")
    if int(number or 0) >= gpus:
        seen = "cuda:0 alone" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}"
        raise MachineError(f"device {name} was asked for, but PyTorch sees {seen}", hint="choose cuda:0 as the device")
    return torch.device(name)
