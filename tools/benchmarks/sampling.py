"""Times drawing a token from a vocabulary of 248,320, by the processor's time of one thread.

OMP_NUM_THREADS=1 python -m tools.benchmarks.sampling --out docs/results/raw/sampling.json
"""

import argparse
import time
from pathlib import Path

import torch

from pipo_core.decode.sampling import Sampler, SamplingParams
from pipo_core.files import write_json

VOCABULARY, REPEATS, SPREAD = 248_320, 5, 5.0
CASES = {
    "all": SamplingParams(),
    "top-k 20": SamplingParams(top_k=20),
    "top-p 0.95": SamplingParams(top_p=0.95),
    "greedy": SamplingParams(temperature=0.0),
}


def milliseconds(params: SamplingParams, count: int) -> float:
    """Return the least milliseconds of drawing one token for each of ``count`` sequences."""
    scores = SPREAD * torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(0))
    sampler = Sampler([params] * count, [()] * count, VOCABULARY, torch.device("cpu"))
    times = []
    for _ in range(1 + REPEATS):
        began = time.process_time()
        sampler.sample(scores)
        times.append(time.process_time() - began)
    return 1e3 * min(times[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    torch.set_num_threads(1)
    found = {name: {count: milliseconds(params, count) for count in (1, 16)} for name, params in CASES.items()}
    write_json(parser.parse_args().out, {"vocabulary": VOCABULARY, "milliseconds": found})
