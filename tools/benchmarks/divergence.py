"""Time and peak memory of distillation's ``topk`` loss: chunked (ours) against all positions at once by autograd.

    python -m tools.benchmarks.divergence --out docs/results/raw/divergence.json

The student's head is frozen, as with LoRA: the gradient is that of its hidden states.
"""

from typing import Any

import torch

from pipo_core.model.distillation import Head, distillation_loss
from tools.benchmarks.alone import main, measured

VOCABULARY, HIDDEN, TEACHER_HIDDEN, TOP_K = 248_320, 1024, 2048, 32
CASES: list[dict[str, Any]] = [
    {"positions": 2048, "chunk": 1024},
    {"positions": 2048, "chunk": 256},
    {"positions": 8192, "chunk": 1024},
    {"positions": 2048, "chunk": None},
]


def measure(positions: int, chunk: int | None) -> dict[str, float]:
    """Return the figures of one forward and backward pass; without a chunk, of the plain computation."""
    generator = torch.Generator().manual_seed(0)
    heads = [torch.empty(VOCABULARY, size).normal_(std=0.02, generator=generator) for size in (HIDDEN, TEACHER_HIDDEN)]
    hidden = torch.randn(positions, HIDDEN, generator=generator, requires_grad=True)
    teacher = Head(torch.randn(positions, TEACHER_HIDDEN, generator=generator), heads[1])
    drawn = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    if chunk:
        student = Head(hidden, heads[0])
        return measured(
            lambda: distillation_loss(student, teacher, drawn, mode="topk", top_k=TOP_K, chunk=chunk).loss.backward()
        )
    return measured(lambda: plain_topk(hidden @ heads[0].T, teacher.hidden @ teacher.weight.T, drawn).backward())


def plain_topk(student: torch.Tensor, teacher: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``Σ_{y ∈ U} p_s (log p_s − log p_t)`` and one bucket for the rest, from logits ``[N, V]``."""
    s, t = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    ids = torch.cat([s.topk(TOP_K).indices, t.topk(TOP_K).indices, drawn[:, None]], dim=1)
    inside = torch.zeros_like(s, dtype=torch.bool).scatter_(1, ids, True)
    p = s.exp()
    rest_s, rest_t = (part.masked_fill(inside, 0.0).sum(dim=1) for part in (p, t.exp()))
    listed = (p * (s - t)).masked_fill(~inside, 0.0).sum(dim=1)
    return (listed + rest_s * (rest_s.log() - rest_t.log())).mean()


if __name__ == "__main__":
    facts = {
        **{"vocabulary": VOCABULARY, "hidden": HIDDEN, "teacher_hidden": TEACHER_HIDDEN, "top_k": TOP_K},
        "dtype": "float32",
    }
    main("tools.benchmarks.divergence", "Distillation's topk loss", facts, CASES, measure)
