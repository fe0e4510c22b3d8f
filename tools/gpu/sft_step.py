"""Tokens a second and peak memory of SFT steps on random weights of a published size, without data or downloads.

    python -m tools.gpu.sft_step --shape qwen3.5-0.8b --tokens 8192 --out step.json

It does what `pipo train` does in one process: bf16 arithmetic under autocast, fp32 copies of what trains, gradient
checkpointing, AdamW, the chunked LM-head losses. It needs PyTorch and transformers alone; with the recipes' packages
installed it says the estimate of `pipo train --dry-run` beside what was measured.
"""

import argparse
import contextlib
import importlib.util
import json
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pipo_core.model import LossWeights
from pipo_core.model.shapes import random_shape_model


def measure(
    shape: str,
    *,
    device: torch.device,
    precision: str = "bf16",
    tokens: int = 8192,
    rows: int = 1,
    steps: int = 3,
    chunk: int = 2048,
    checkpointing: bool = True,
) -> dict[str, Any]:
    """Return figures of ``steps`` optimizer steps on all weights, after one that warms up.

    Args:
        shape: name of a shape in `pipo_core.model.shapes`.
        device: where.
        precision: ``bf16``, or ``fp32``.
        tokens: of each row; half as many slots.
        rows: of a pass.
        steps: that are timed.
        chunk: positions that the LM head projects at once.
        checkpointing: whether activations are computed again in the backward pass.
    """
    on_gpu = device.type == "cuda"
    model = random_shape_model(shape, dtype=torch.float32, device=device)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, betas=(0.9, 0.95), fused=on_gpu)
    ids = torch.randint(0, 1000, (rows, tokens), device=device, generator=torch.Generator(device).manual_seed(0))
    labels = ids.clone()
    labels[:, : tokens // 16] = -100
    arithmetic = torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    losses = []

    def step() -> None:
        with arithmetic:
            loss = model(input_ids=ids, labels=labels, loss_weights=LossWeights(chunk=chunk)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())  # waits for the GPU

    step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - began) / steps
    peak = (
        torch.cuda.max_memory_allocated(device) if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    )
    return {
        "shape": shape,
        "precision": precision,
        "rows": rows,
        "tokens": tokens,
        "seconds_a_step": seconds,
        "tokens_a_second": rows * tokens / seconds,
        "peak_bytes": peak,
        "estimated_bytes": _estimate(shape, precision, tokens, rows, chunk, checkpointing),
        "losses": losses,
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "flash_linear_attention": importlib.util.find_spec("fla") is not None,
        "torch": torch.__version__,
    }


def _estimate(shape: str, precision: str, tokens: int, rows: int, chunk: int, checkpointing: bool) -> int | None:
    if importlib.util.find_spec("pydantic") is None:
        return None
    from pipo_core.model.shapes import shape_config
    from pipo_core.recipes.sft import TrainRecipe
    from pipo_core.sizing.memory import estimate_memory

    recipe = TrainRecipe.model_validate(
        {
            "model": shape,
            "data": {"train": "rows.jsonl", "max_length": tokens},
            "tuning": {"method": "full"},
            "loss": {"chunk": chunk},
            "batch": {"per_device": rows},
            "max_steps": 1,
            "precision": precision,
            "gradient_checkpointing": checkpointing,
        }
    )
    fast = importlib.util.find_spec("fla") is not None
    return estimate_memory(recipe, shape_config(shape), fast_kernels=fast).total


def main() -> None:
    """Measure what the arguments say and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3.5-0.8b")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    figures = measure(
        given.shape,
        device=torch.device(given.device),
        precision=given.precision,
        tokens=given.tokens,
        rows=given.rows,
        steps=given.steps,
    )
    text = json.dumps(figures, indent=2) + "\n"
    sys.stdout.write(text)
    if given.out is not None:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
