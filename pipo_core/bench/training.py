"""Speed and memory of a training pass, pair model against the uncompressed one, on the same text and random weights.

A pass is forward with its losses and backward through `Qwen3_5ForCausalPIPO.forward`; the optimizer is left out, for it
costs both the same. Of ``T`` tokens the backbone reads ``T`` positions in ``regular`` and ``T/2`` slots in ``pipo``:
half the products with weights, half of what is kept for the gradient, a quarter of attention's scores. The LM head is
applied to ``T/2`` first tokens and ``T/2`` drafts, in ``regular`` to ``T`` next tokens and ``T`` of the MTP head's.
What stays is what a pass does with the weights themselves: their gradients are written whole.

Each figure comes from processes of its own, whose peak is therefore of this pass alone; they run in the order regular,
pipo, pipo, regular, so that a machine that grows steadily slower favours neither. Rows have
no PAD.
"""

import contextlib
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import MachineError, UsageError
from pipo_core.model import LossWeights
from pipo_core.model.checkpoint import random_weights
from pipo_core.model.modeling import Objective

ORDER: tuple[Objective, ...] = ("regular", "pipo", "pipo", "regular")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingCase:
    """One row of text to train on.

    Attributes:
        config: the model's.
        tokens: of the row, even.
        trials: passes that are timed.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16``; of weights, gradients and arithmetic.
        checkpointing: whether activations are computed again in the backward pass.
        chunk: positions that the LM head projects at once.
        threads: of a CPU; PyTorch's choice where None.

    Raises:
        UsageError: for an odd or too short row, no trial, or an unknown precision.
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
            raise UsageError(f"tokens = {self.tokens}: a row has an even number of tokens, 8 or more")
        if self.trials < 1:
            raise UsageError(f"trials = {self.trials}: at least one pass must be timed")
        if self.precision not in DTYPES:
            raise UsageError(f"precision {self.precision!r} is neither fp32 nor bf16")


def measure_training(case: TrainingCase) -> dict[str, Any]:
    """Return both objectives' tokens a second and peak memory, every trial, and the ratios pipo over regular.

    Raises:
        MachineError: if a process was killed, as it is when memory does not suffice, or the device is not there.
    """
    if case.device.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(f"device {case.device} was asked for, but PyTorch sees no GPU", hint="set engine.device=cpu")
    runs = [(objective, _in_own_process(case, objective)) for objective in ORDER]
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
    """Return seconds of each timed pass, after one that warms up, and peak bytes since the weights were there.

    On a CPU the peak is the process's resident memory, interpreter and libraries included; on a GPU, what PyTorch
    allocated. Call it in a process of its own: memory that an earlier case freed may still be resident.
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
    _forget_peak(device)
    seconds = []
    for _ in range(1 + case.trials):
        _wait(device)
        began = time.perf_counter()
        out = model(input_ids=ids, labels=labels, objective=objective, loss_weights=LossWeights(chunk=case.chunk))
        out.loss.backward()
        _wait(device)
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return {
        "seconds": seconds[1:],
        "peak_bytes": _peak(device),
        "weights_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
    }


def _in_own_process(case: TrainingCase, objective: Objective) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run_passes, case, objective).result()
        except (RuntimeError, MemoryError) as error:  # a killed process and a full GPU are RuntimeErrors of their own
            if type(error) is RuntimeError and "memory" not in str(error):
                raise
            raise MachineError(
                f"a {objective} pass of {case.tokens:,} tokens did not end: memory does not suffice",
                hint="shorter training_tokens, or a smaller shape",
            ) from error


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux: 5 sets the high-water mark to what is resident now. Elsewhere building the weights counts too.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Not ru_maxrss where it can be helped: Linux hands a parent's peak on to the programs that it starts.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
