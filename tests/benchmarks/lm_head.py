"""Time and peak memory of the LM head's loss: chunked (ours) against logits of all positions at once.

    python tests/benchmarks/lm_head.py --out docs/results/raw/lm-head.json

Each case runs in a process of its own, so that its peak is its own. The head is frozen, as with LoRA: the gradient is
that of the hidden states.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

VOCABULARY, HIDDEN = 248_320, 1024
CASES = [(4096, 2048), (16384, 2048), (4096, 0)]


def measure(positions: int, chunk: int) -> dict[str, float]:
    """Return seconds and peak bytes above the inputs of one forward and backward pass; chunk 0 is unchunked."""
    import torch
    from torch.nn import functional as F

    from pipo_core.model.losses import head_loss

    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(VOCABULARY, HIDDEN).normal_(std=0.02, generator=generator)
    hidden = torch.randn(1, positions, HIDDEN, generator=generator, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (1, positions), generator=generator)
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here (Linux)
    start = time.perf_counter()
    if chunk:
        head_loss(hidden, weight, labels, chunk=chunk).loss.backward()
    else:
        F.cross_entropy((hidden @ weight.T)[0].float(), labels[0]).backward()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": (_kilobytes("VmHWM") - before) * 1024}


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    """Run every case and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", help="positions,chunk: measure one case here and print it")
    arguments = parser.parse_args()
    if arguments.case:
        positions, chunk = map(int, arguments.case.split(","))
        sys.stdout.write(json.dumps(measure(positions, chunk)))
        return
    rows = []
    for positions, chunk in CASES:
        command = [sys.executable, __file__, "--out", "-", "--case", f"{positions},{chunk}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({"positions": positions, "chunk": chunk or None, **json.loads(output)})
        sys.stdout.write(f"{rows[-1]}\n")
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        content = {"vocabulary": VOCABULARY, "hidden": HIDDEN, "dtype": "float32", "machine": machine, "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
