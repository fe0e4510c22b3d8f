"""Training losses as pure functions of tensors (paper, section 4.1).

The vocabulary is large (248,320 in Qwen3.5), so logits of a whole batch never exist: the LM head runs over a few
hundred or thousand positions at a time, and each chunk leaves behind only its loss, its gradient with respect to the
hidden states and the log-probability of the label, which is the confidence head's target for free.
"""

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

IGNORED = -100
"""The label of positions without a loss: the prompt, PADs, batch padding."""


class HeadLoss(NamedTuple):
    """Cross-entropy of one head.

    Attributes:
        loss: mean over the labelled positions, in nats; 0, with a gradient path, if there are none.
        valid: ``[B, S]``, True at labelled positions.
        label_logprob: ``[N]``, log-probability of each label in order of ``valid``, fp32, detached.
    """

    loss: torch.Tensor
    valid: torch.Tensor
    label_logprob: torch.Tensor


class ConfidenceLoss(NamedTuple):
    """Binary cross-entropy of the confidence head; all are scalars.

    Attributes:
        loss: mean over the drafts, in nats.
        mean: mean predicted confidence.
        target_mean: mean of what it should predict.
    """

    loss: torch.Tensor
    mean: torch.Tensor
    target_mean: torch.Tensor


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies over ``N`` positions with the LM head applied chunk by chunk.

    Gradients are formed while a chunk's probabilities are at hand, so the backward pass projects nothing again:
    ``∂/∂h = (p − onehot) · W`` and ``∂/∂W = (p − onehot)ᵀ · h``.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        count = hidden.shape[0]
        logprob = torch.empty(count, dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            gold = labels[rows, None]
            scores = F.linear(hidden[rows], weight).float()
            gold_score = scores.gather(1, gold)
            top = scores.amax(dim=1, keepdim=True)
            exponentials = scores.sub_(top).exp_()  # in place: one [chunk, V] buffer, not four
            total = exponentials.sum(dim=1, keepdim=True)
            logprob[rows] = (gold_score - top - total.log()).squeeze(1)
            if needs_hidden or needs_weight:
                error = exponentials.div_(total).scatter_add_(1, gold, torch.full_like(gold_score, -1.0))
                error = error.to(weight.dtype)
                if hidden_grad is not None:
                    hidden_grad[rows] = error @ weight
                if weight_grad is not None:
                    weight_grad += error.T @ hidden[rows]
                del error
            del scores, exponentials  # before the next chunk's buffer is made
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(logprob)
        return -logprob.sum(), logprob

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*formed_gradients(ctx, outputs[0]), None, None)


def formed_gradients(ctx: Any, loss_grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of hidden states and LM head that a forward pass formed, times the gradient of its sum.

    Args:
        ctx: it has saved both gradients, None where not needed, and holds the LM head's ``weight_dtype``.
        loss_grad: gradient of the sum.
    """
    hidden_grad, weight_grad = ctx.saved_tensors
    if hidden_grad is not None:
        hidden_grad = hidden_grad * loss_grad.to(hidden_grad.dtype)
    if weight_grad is not None:
        weight_grad = (weight_grad * loss_grad).to(ctx.weight_dtype)
    return hidden_grad, weight_grad


def head_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, chunk: int) -> HeadLoss:
    """Return ``mean CE(LMHead(hidden), labels)`` over the labelled positions.

    Only labelled positions are projected, ``chunk`` of them at a time.

    Args:
        hidden: ``[B, S, H]``.
        weight: the LM head, ``[V, H]``.
        labels: ``[B, S]``, `IGNORED` where there is no loss.
        chunk: positions projected at once; memory is about ``chunk · V`` fp32 numbers.
    """
    valid = labels != IGNORED
    total, logprob = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden[valid], weight, labels[valid], chunk
    )
    return HeadLoss(total / max(logprob.numel(), 1), valid, logprob)


def confidence_loss(logits: torch.Tensor, target: torch.Tensor) -> ConfidenceLoss:
    """Return ``mean BCE(c_i, target)`` over the positions that have a draft; 0 (with a gradient path) where none has.

    In fine-tuning the target is the draft head's own probability of the right token, ``p2(t_{2i+3})``, in distillation
    the probability that the teacher would accept the draft. The head's inputs are detached by the caller, so this loss
    trains the confidence head alone.

    Args:
        logits: the confidence head's logits, ``[N]``, fp32.
        target: ``[N]``, in [0, 1], detached.
    """
    count = max(logits.numel(), 1)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / count
    return ConfidenceLoss(loss, logits.detach().sigmoid().sum() / count, target.sum() / count)
