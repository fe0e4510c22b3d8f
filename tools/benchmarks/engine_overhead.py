"""What a decode step costs beside the model: sampling, bookkeeping and text, as a share of the step.

    python -m tools.benchmarks.engine_overhead --shape qwen3.5-0.8b --out docs/results/raw/engine-overhead.json

A step's passes through the model are timed by the `PassRunner` that runs them; the rest of the step is overhead.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from pipo_core.decode.kernels import compile_steps
from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine.api import Request
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.files import write_json
from pipo_core.machine import machine, versions
from pipo_core.model.shapes import random_shape_model
from pipo_core.recipes.locate import bundled_model


class TimedRunner:
    """Runs passes as they are and adds up how long they take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Any, *arguments: Any) -> Any:
        """Run a pass."""
        began = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - began
        return result


def measure(model: Any, tokenizer: Any, name: str, *, prompt: int, steps: int) -> dict[str, float]:
    """Return milliseconds of a step and of what is not the model in it, medians over ``steps``."""
    runner = TimedRunner()
    method = open_method(name, model, int(tokenizer.pad_token_id), acceptance=1.0 if name == "pipo" else None)
    engine = TorchEngine(replace(method, run=runner), tokenizer, batch=1)
    sampling = SamplingParams(temperature=1.0, top_p=0.95, top_k=20, presence_penalty=1.5)
    engine.add(Request("0", tuple(range(3, 3 + prompt)), sampling, max_tokens=10_000, ignore_end=True))
    while not engine.stats().tokens:
        engine.step()
    whole, beside = [], []
    for _ in range(steps + 3):
        runner.seconds = 0.0
        began = time.perf_counter()
        engine.step()
        whole.append(time.perf_counter() - began)
        beside.append(whole[-1] - runner.seconds)
    share = float(np.median(np.array(beside[3:]) / np.array(whole[3:])))
    return {
        "step_ms": 1e3 * float(np.median(whole[3:])),
        "overhead_ms": 1e3 * float(np.median(beside[3:])),
        "share": share,
    }


def main() -> None:
    """Measure regular and pipo, print a line for each, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3.5-0.8b")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_shape_model(given.shape, dtype=torch.bfloat16, device=torch.device("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(bundled_model("tiny-student"))
    compile_steps(model)
    rows = {}
    for name in ("regular", "pipo"):
        rows[name] = measure(model, tokenizer, name, prompt=given.prompt, steps=given.steps)
        sys.stdout.write(f"{name}: {rows[name]}\n")
    if given.out:
        settings = {key: value for key, value in vars(given).items() if key != "out"}
        write_json(given.out, {**settings, "machine": machine(), "versions": versions(), "methods": rows})


if __name__ == "__main__":
    main()
