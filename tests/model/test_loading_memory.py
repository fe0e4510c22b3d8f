"""Loading N bytes of weights peaks below 1.3 N above the process's own memory, whatever the dtypes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.model.checkpoint import random_model

MEASURE = """
import json, sys, torch
from pipo_core.model import load_checkpoint

def kilobytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])

small, *cases = sys.argv[1:]
load_checkpoint(small)                               # lazy imports are the process's own
for case in cases:
    folder, dtype = case.split("=")
    before = kilobytes("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")    # the peak starts again from here
    model = load_checkpoint(folder, dtype=getattr(torch, dtype))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    print(json.dumps({"case": case, "size": size, "peak": (kilobytes("VmHWM") - before) * 1024}))
    del model
"""


@pytest.fixture(scope="module")
def big(reference_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of about 200 MB in fp32, most of it embedding, as in the small Qwen3.5 models."""
    folder = tmp_path_factory.mktemp("big")
    config = json.loads((reference_folder / "config.json").read_text())
    config.update(vocab_size=60_000, hidden_size=512, intermediate_size=2048)
    (folder / "config.json").write_text(json.dumps(config))
    model = random_model(folder)
    saved = {"float32": save_checkpoint(model, folder / "fp32")}
    saved["bfloat16"] = save_checkpoint(model.to(torch.bfloat16), folder / "bf16")
    return saved


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak memory")
def test_peak_memory(big: dict[str, Path], reference_folder: Path) -> None:
    cases = [f"{folder}={wanted}" for folder in big.values() for wanted in ("float32", "bfloat16")]
    command = [sys.executable, "-c", MEASURE, str(reference_folder), *cases]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured = [json.loads(line) for line in output.splitlines()]
    assert len(measured) == 4
    for case in measured:
        assert case["size"] > 80e6
        assert case["peak"] < 1.3 * case["size"], case


def test_a_random_model_differs_from_another(reference_folder: Path) -> None:
    first, second = random_model(reference_folder), random_model(reference_folder)
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert torch.equal(first.get_parameter("compressor.mlp.0.weight"), torch.eye(128))
    assert load_checkpoint(reference_folder).config.hidden_size == first.config.hidden_size
