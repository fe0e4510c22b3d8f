"""Time and peak memory of the LM head's loss: chunked (ours) against logits of all positions at once.

    python -m tools.benchmarks.lm_head --out docs/results/raw/lm-head.json

The head is frozen, as with LoRA: the gradient is that of the hidden states.
"""

from typing import Any

import torch
from torch.nn import functional as F

from pipo_core.model.losses import head_loss
from tools.benchmarks.alone import main, measured

VOCABULARY, HIDDEN = 248_320, 1024
CASES: list[dict[str, Any]] = [
    {"positions": 4096, "chunk": 2048},
    {"positions": 16384, "chunk": 2048},
    {"positions": 4096, "chunk": None},
]


def measure(positions: int, chunk: int | None) -> dict[str, float]:
    """Return the figures of one forward and backward pass; without a chunk all positions are projected at once."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(VOCABULARY, HIDDEN).normal_(std=0.02, generator=generator)
    hidden = torch.randn(1, positions, HIDDEN, generator=generator, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (1, positions), generator=generator)
    if chunk:
        return measured(lambda: head_loss(hidden, weight, labels, chunk=chunk).loss.backward())
    return measured(lambda: F.cross_entropy((hidden @ weight.T)[0].float(), labels[0]).backward())


if __name__ == "__main__":
    facts = {"vocabulary": VOCABULARY, "hidden": HIDDEN, "dtype": "float32"}
    main("tools.benchmarks.lm_head", "The LM head's loss", facts, CASES, measure)
