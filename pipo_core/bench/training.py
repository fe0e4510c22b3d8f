"""Speed and memory of a training pass: the pair model against the uncompressed one, same text and random weights.

A pass is forward with losses and backward through `Qwen3_5ForCausalPIPO.forward`. The optimizer is left out, because it
costs both the same. For ``T`` tokens the backbone reads ``T`` positions in ``regular`` and ``T/2`` slots in ``pipo``:
half the products with weights, half the activations, a quarter of the attention scores. The LM head projects ``T/2``
first tokens and ``T/2`` drafts in ``pipo``, and ``T`` next tokens and ``T`` tokens of the MTP head in ``regular``. Both
write the gradients of all weights.

Each measurement runs in a separate process, so that its peak memory belongs to one pass alone. The order is regular,
pipo, pipo, regular, so that a machine that becomes steadily slower favours neither. Examples have no PAD.
"""

import contextlib
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import MachineError, UsageError
from pipo_core.machine import peak_memory
from pipo_core.model import LossWeights
from pipo_core.model.checkpoint import random_weights
from pipo_core.model.modeling import Objective

ORDER: tuple[Objective, ...] = ("regular", "pipo", "pipo", "regular")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingCase:
    """The settings of a measurement: one example, and how it is trained on.

    Attributes:
        config: the model's shape.
        tokens: length of the example, an even number.
        trials: number of timed passes.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16``, for weights, gradients and arithmetic.
        checkpointing: whether the backward pass computes activations again.
        chunk: number of positions that the LM head projects at once.
        threads: number of CPU threads; None for PyTorch's choice.

    Raises:
        UsageError: if the example's length is odd or too short, no pass is timed, or the precision is unknown.
    """

    config: Qwen3_5TextConfig
    tokens: int
    trials: int = 3
    device: str = "cpu"
    precision: str = "bf16"
    checkpointing: bool = True
    chunk: int = 2048
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.tokens < 8 or self.tokens % 2:
            raise UsageError(f"tokens = {self.tokens}: must be an even number, 8 or more")
        if self.trials < 1:
            raise UsageError(f"trials = {self.trials}: at least one pass must be timed")
        if self.precision not in DTYPES:
            raise UsageError(f"precision {self.precision!r} is neither fp32 nor bf16")


def measure_training(case: TrainingCase) -> dict[str, Any]:
    """Return both objectives' tokens per second and peak memory, every trial, and the ratios of pipo over regular.

    Raises:
        MachineError: if the device is absent, or memory does not suffice (its process is then killed).
    """
    if case.device.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(
            f"device {case.device} was asked for, but PyTorch sees no GPU", hint="choose cpu as the device"
        )
    runs = [(objective, _run_in_new_process(case, objective)) for objective in ORDER]
    arms = {}
    for objective in ("regular", "pipo"):
        own = [run for name, run in runs if name == objective]
        seconds = [second for run in own for second in run["seconds"]]
        arms[objective] = {
            "tokens_per_second": case.tokens / float(np.median(seconds)),
            "seconds": seconds,
            "peak_bytes": max(run["peak_bytes"] for run in own),
            "weights_bytes": own[0]["weights_bytes"],
        }
    regular, pipo = arms["regular"], arms["pipo"]
    return {
        "tokens": case.tokens,
        "arms": arms,
        "speedup": pipo["tokens_per_second"] / regular["tokens_per_second"],
        "peak_ratio": pipo["peak_bytes"] / regular["peak_bytes"],
    }


def run_passes(case: TrainingCase, objective: Objective) -> dict[str, Any]:
    """Return the seconds of each timed pass, after a warm-up pass, and the peak of memory after building the weights.

    On a CPU the peak is the resident memory of the process, with interpreter and libraries; on a GPU it is what PyTorch
    allocated. The function needs a fresh process, because memory that an earlier case freed can still be resident.
    """
    device = torch.device(case.device)
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    model = random_weights(case.config, dtype=DTYPES[case.precision], device=device)
    model.train()
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(1, min(1000, case.config.vocab_size), (1, case.tokens)).to(device)  # 0 may be a PAD
    labels = ids.clone()
    labels[:, :2] = -100
    _reset_peak(device)
    seconds = []
    for _ in range(1 + case.trials):
        _synchronize(device)
        began = time.perf_counter()
        out = model(input_ids=ids, labels=labels, objective=objective, loss_weights=LossWeights(chunk=case.chunk))
        out.loss.backward()
        _synchronize(device)
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return {
        "seconds": seconds[1:],
        "peak_bytes": _peak_bytes(device),
        "weights_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
    }


def _run_in_new_process(case: TrainingCase, objective: Objective) -> dict[str, Any]:
    """Return the result of `run_passes`, called in a new process.

    Raises:
        MachineError: if memory does not suffice.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run_passes, case, objective).result()
        except (RuntimeError, MemoryError) as error:  # a killed process and a full GPU raise subclasses of RuntimeError
            if type(error) is RuntimeError and "memory" not in str(error):
                raise
            raise MachineError(
                f"a {objective} pass of {case.tokens:,} tokens failed: memory does not suffice",
                hint="use shorter training_tokens or a smaller shape",
            ) from error


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # On Linux, 5 resets the high-water mark to the present size. Elsewhere the peak includes building the weights.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # VmHWM where it exists: on Linux a process inherits ru_maxrss from the parent that started it.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return int(peak_memory() * 2**30)
