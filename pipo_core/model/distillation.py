r"""On-policy distillation's losses as pure functions of tensors (paper, section 4.2).

At every position that the student sampled, its distribution ``p_s`` is compared with the teacher's ``p_t`` by the
reverse divergence ``KL(p_s ‖ p_t)`` in one of these forms. ``g`` is a log-ratio, constant under differentiation:

- ``full``: ``Σ_y p_s(y) · g(y)``, ``g = log p_s − log p_t``, over the whole vocabulary: exact.
- ``topk``: the same sum over ``U``, the union of both models' ``k`` most likely tokens and the sampled one, and one
  bucket that holds the rest of each model's mass. Never above the exact value.
- ``topk_renormalised``: over ``U`` alone, both distributions renormalised there (the paper's form); blind to how much
  mass is outside.
- ``sampled``: ``g(y)`` at the sampled token, an unbiased estimate of ``full`` where ``y ~ p_s``. Its gradient is the
  score function's, ``g(y) · ∇ log p_s(y)``. Differentiating the value itself would give ``∇ log p_s(y)``, which does
  not contain the teacher and has a mean of zero.

- of a teacher that only lists its likeliest tokens (`ListedTokens`): ``topk`` over the listed tokens, the rest of each
  model's mass in one bucket. Also never above the exact value; equal to ``topk`` where the student's own ``k``
  likeliest tokens are among them.

All gradients with respect to the student's scaled logits ``s`` have one shape,
``∂/∂s_v = p_s(v) · (g(v) − Σ_y p_s(y) g(y))`` (``sampled``: ``g(y) · (1[v = y] − p_s(v))``). They are formed chunk by
chunk while the probabilities are at hand, so logits of all positions never exist at once.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional as F

from pipo_core.model.losses import formed_gradients

DivergenceMode = Literal["topk", "topk_renormalised", "sampled", "full"]

MAX_LOG_RATIO = 60.0
"""Log-ratios of the bucket are clamped to ± this: the logarithm of a mass that underflows is infinite."""

LEAST_REST = 1e-6
"""The least mass that a teacher's unlisted tokens count as: it is 1 minus a sum of rounded numbers."""


class Head(NamedTuple):
    """Hidden states and the LM head that projects them. Teacher and student may differ in ``H``, never in ``V``.

    Attributes:
        hidden: ``[N, H]``.
        weight: ``[V, H]``.
    """

    hidden: torch.Tensor
    weight: torch.Tensor


class ListedTokens(NamedTuple):
    """What a teacher says of some positions that is asked from afar: a few tokens' log-probabilities.

    Attributes:
        ids: ``[N, K]``; an id may stand there twice, with the same value.
        logprobs: ``[N, K]``, over the whole vocabulary, at temperature 1.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor


class DistillationLoss(NamedTuple):
    """The divergence of one head from the teacher.

    Attributes:
        loss: mean divergence over the positions, in nats; 0, with a gradient path, if there are no positions.
        divergence: ``[N]``, of each position, detached.
        acceptance: ``[N]``, speculative decoding's probability of accepting, detached: ``min(1, p_t(y)/p_s(y))`` at the
            sampled token, for ``full`` its mean over the vocabulary, ``Σ_y min(p_s(y), p_t(y))``. 0 for a token that
            the teacher does not list: it is less likely there than the least likely listed one.
    """

    loss: torch.Tensor
    divergence: torch.Tensor
    acceptance: torch.Tensor


class _Terms(NamedTuple):
    """A chunk's divergence ``[n]``, acceptance ``[n]`` and ``∂divergence/∂s``, ``[n, V]``."""

    divergence: torch.Tensor
    acceptance: torch.Tensor
    gradient: torch.Tensor


def distillation_loss(
    student: Head,
    teacher: Head | ListedTokens,
    sampled: torch.Tensor,
    *,
    mode: DivergenceMode = "topk",
    temperature: float = 1.0,
    top_k: int = 32,
    chunk: int = 1024,
) -> DistillationLoss:
    """Return ``mean KL(p_s ‖ p_t)`` over positions, and the probability that a verifier accepts each sampled token.

    Gradients go to the student's hidden states, and to its LM head if that requires one.

    Args:
        student: ``N`` positions.
        teacher: the same positions after the same text; listed tokens go with ``topk`` and temperature 1 alone.
        sampled: ``[N]``, the tokens that the student sampled there, rejected drafts included.
        mode: form of the divergence, see the module.
        temperature: divides both models' logits.
        top_k: ``k`` of the ``topk`` forms.
        chunk: positions projected at once; memory is about ``3 · chunk · V`` fp32 numbers.

    Raises:
        ValueError: if the vocabularies or the numbers of positions differ, ``mode`` is unknown, or does not go with the
            teacher.
    """
    if isinstance(teacher, ListedTokens):
        if mode != "topk" or temperature != 1.0:
            raise ValueError("listed tokens are compared by topk at temperature 1")
    elif student.weight.shape[0] != teacher.weight.shape[0]:
        raise ValueError(f"vocabularies of {student.weight.shape[0]} and {teacher.weight.shape[0]} tokens differ")
    if not len(student.hidden) == len(teacher[0]) == len(sampled):
        raise ValueError("student, teacher and sampled tokens must be the same positions")
    if mode not in _FORMS:
        raise ValueError(f"unknown mode {mode!r}")
    total, divergence, acceptance = _ChunkedDivergence.apply(  # type: ignore[no-untyped-call]
        *student, type(teacher)(*(part.detach() for part in teacher)), sampled, mode, temperature, top_k, chunk
    )
    return DistillationLoss(total / max(len(sampled), 1), divergence, acceptance)


class _ChunkedDivergence(torch.autograd.Function):
    """Sum of divergences over ``N`` positions, both LM heads applied chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        teacher: Head | ListedTokens,
        sampled: torch.Tensor,
        mode: DivergenceMode,
        temperature: float,
        top_k: int,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        count = hidden.shape[0]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        divergence, acceptance = (torch.empty(count, dtype=exact, device=hidden.device) for _ in range(2))
        hidden_grad = torch.zeros_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=exact) if needs_weight else None
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            s = (F.linear(hidden[rows], weight).to(exact) / temperature).log_softmax(dim=-1)
            t = None
            if isinstance(teacher, ListedTokens):
                terms = _listed(s, ListedTokens(*(part[rows] for part in teacher)), sampled[rows, None])
            else:
                t = (F.linear(teacher.hidden[rows], teacher.weight).to(exact) / temperature).log_softmax(dim=-1)
                terms = _FORMS[mode](s, t, sampled[rows, None], top_k)
            divergence[rows], acceptance[rows] = terms.divergence, terms.acceptance
            error = terms.gradient.div_(temperature).to(weight.dtype)
            if hidden_grad is not None:
                hidden_grad[rows] = error @ weight
            if weight_grad is not None:
                weight_grad += error.T @ hidden[rows]
            del s, t, terms, error  # before the next chunk's buffers are made
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(divergence, acceptance)
        return divergence.sum(), divergence, acceptance

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*formed_gradients(ctx, outputs[0]), *[None] * 6)


# The forms take log-probabilities ``s = log p_s`` and ``t = log p_t``, ``[n, V]``, and the sampled tokens ``[n, 1]``.
# They may overwrite ``s`` and ``t``.


def _full(s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor, top_k: int) -> _Terms:
    """Return ``KL = sum_v p_s (s - t)``, ``sum_v min(p_s, p_t)``, and the gradient ``p_s (s - t - KL)``."""
    acceptance = torch.minimum(s, t).exp_().sum(dim=1)
    ratio = torch.sub(s, t, out=t)
    p = s.exp_()
    divergence = (p * ratio).sum(dim=1, keepdim=True)
    return _Terms(divergence.squeeze(1), acceptance, p.mul_(ratio.sub_(divergence)))


def _sampled(s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor, top_k: int) -> _Terms:
    """Return ``r = s - t`` at the sampled token, ``min(1, exp(-r))``, and the gradient ``r (1[v = sampled] - p_s)``."""
    ratio = s.gather(1, sampled) - t.gather(1, sampled)
    gradient = s.exp_().neg_().scatter_add_(1, sampled, torch.ones_like(ratio)).mul_(ratio)
    return _Terms(ratio.squeeze(1), _acceptance(ratio), gradient)


def _topk(s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor, top_k: int) -> _Terms:
    """Return the KL over the likeliest tokens of both models and, as one more token, all the rest together."""
    union, member = _union(s, t, sampled, top_k)
    t_union = t.gather(1, union)
    acceptance = _acceptance(s.gather(1, sampled) - t.gather(1, sampled))
    t_rest = t.exp_().scatter_(1, union, 0.0).sum(dim=1)
    return _bucketed(s, union, member, t_union, t_rest, acceptance)


def _listed(s: torch.Tensor, teacher: ListedTokens, sampled: torch.Tensor) -> _Terms:
    """Return the same over the tokens that the teacher lists; its rest is what they leave of 1."""
    union, order = teacher.ids.sort(dim=1)
    member = _is_new(union)
    t_union = teacher.logprobs.to(s.dtype).gather(1, order)
    t_sampled = t_union.masked_fill(union != sampled, -math.inf).amax(dim=1, keepdim=True)
    acceptance = _acceptance(s.gather(1, sampled) - t_sampled)
    t_rest = (1 - (t_union.double().exp() * member).sum(dim=1)).clamp_min(LEAST_REST).to(s.dtype)
    return _bucketed(s, union, member, t_union, t_rest, acceptance)


def _bucketed(
    s: torch.Tensor,
    union: torch.Tensor,
    member: torch.Tensor,
    t_union: torch.Tensor,
    t_rest: torch.Tensor,
    acceptance: torch.Tensor,
) -> _Terms:
    """Return the KL over some tokens and, as one more token, all the rest together.

    Args:
        s: the student's log-probabilities, which are overwritten.
        union: the tokens, ``[n, U]``, sorted.
        member: where each is new, ``[n, U]``.
        t_union: the teacher's log-probabilities of the tokens, ``[n, U]``.
        t_rest: the mass that the teacher has outside of them, ``[n]``.
        acceptance: ``[n]``.
    """
    s_union = s.gather(1, union)
    p = s.exp_()
    p_union = s_union.exp() * member
    ratio = s_union - t_union
    s_rest = p.scatter(1, union, 0.0).sum(dim=1)
    rest_ratio = torch.where(s_rest > 0, (s_rest.log() - t_rest.log()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), 0.0)
    divergence = ((p_union * ratio).sum(dim=1) + s_rest * rest_ratio)[:, None]
    gradient = p.mul_(rest_ratio[:, None] - divergence)
    # A token that stands in the union twice gets the same value twice.
    gradient.scatter_(1, union, s_union.exp() * (ratio - divergence))
    return _Terms(divergence.squeeze(1), acceptance, gradient)


def _topk_renormalised(s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor, top_k: int) -> _Terms:
    """Return the KL over the likeliest tokens of both models, to which both distributions are renormalised."""
    union, member = _union(s, t, sampled, top_k)
    acceptance = _acceptance(s.gather(1, sampled) - t.gather(1, sampled))
    q_s, q_t = (
        log_p.gather(1, union).masked_fill(~member, -math.inf).logsumexp(dim=1, keepdim=True) for log_p in (s, t)
    )
    s_union = s.gather(1, union) - q_s
    ratio = s_union - (t.gather(1, union) - q_t)
    divergence = (s_union.exp() * member * ratio).sum(dim=1, keepdim=True)
    gradient = s.zero_().scatter_(1, union, s_union.exp() * (ratio - divergence))
    return _Terms(divergence.squeeze(1), acceptance, gradient)


_FORMS = {"topk": _topk, "topk_renormalised": _topk_renormalised, "sampled": _sampled, "full": _full}


def _union(s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both models' ``top_k`` most likely tokens and the sampled one, ``[n, 2k + 1]``, and where each is new."""
    k = min(top_k, s.shape[1])
    union = torch.cat([s.topk(k, dim=1).indices, t.topk(k, dim=1).indices, sampled], dim=1).sort(dim=1).values
    return union, _is_new(union)


def _is_new(union: torch.Tensor) -> torch.Tensor:
    """Return where each id of sorted ones, ``[n, U]``, stands for the first time."""
    member = torch.ones_like(union, dtype=torch.bool)
    member[:, 1:] = union[:, 1:] != union[:, :-1]
    return member


def _acceptance(ratio: torch.Tensor) -> torch.Tensor:
    """Return ``min(1, p_t(y)/p_s(y))``, ``[n]``, from ``log p_s(y) − log p_t(y)``, ``[n, 1]``, cut off first."""
    return (-ratio).clamp(-MAX_LOG_RATIO, 0.0).exp().squeeze(1)
