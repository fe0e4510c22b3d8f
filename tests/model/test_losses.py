"""Chunked losses against PyTorch's own, in values and gradients."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO, TeacherTargets
from pipo_core.model.losses import IGNORED, head_loss


def _inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 11, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 50, (3, 11), generator=generator)
    labels[0, :5] = IGNORED
    labels[2] = IGNORED
    return hidden, weight, labels


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_loss_and_gradients_equal_cross_entropy(chunk: int) -> None:
    hidden, weight, labels = _inputs()
    result = head_loss(hidden, weight, labels, chunk=chunk)
    (3.0 * result.loss).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None

    logits = hidden @ weight.T
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    (3.0 * expected).backward()
    torch.testing.assert_close(result.loss.double(), expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(ours, (hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    chosen = logits.log_softmax(-1)[labels != IGNORED].gather(1, labels[labels != IGNORED][:, None])[:, 0]
    torch.testing.assert_close(result.label_logprob.double(), chosen.detach(), atol=1e-5, rtol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do() -> None:
    hidden, weight, labels = _inputs()
    weight = weight.detach()
    head_loss(hidden, weight, labels, chunk=4).loss.backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_the_confidence_loss_trains_the_confidence_head_alone(reference: Qwen3_5ForCausalPIPO) -> None:
    ids = torch.randint(2, 384, (2, 12), generator=torch.Generator().manual_seed(1))
    gradients = {}
    for weight in (0.0, 1.0):
        reference.zero_grad()
        reference(input_ids=ids, labels=ids, loss_weights=LossWeights(confidence=weight)).loss.backward()
        gradients[weight] = {n: p.grad.clone() for n, p in reference.named_parameters() if p.grad is not None}
    reference.zero_grad()
    for name, gradient in gradients[1.0].items():
        changed = not torch.equal(gradient, gradients[0.0].get(name, torch.zeros_like(gradient)))
        assert changed == name.startswith("confidence_head."), name


@pytest.mark.parametrize("objective", ["pipo", "distill"])
def test_the_gate_learns_to_reject_what_cannot_be_drafted(reference: Qwen3_5ForCausalPIPO, objective: str) -> None:
    """Its target is 0 where the draft is not among the ids, and else as without them; no other loss changes."""
    ids = torch.randint(2, 384, (2, 12), generator=torch.Generator().manual_seed(1))
    hidden = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(2))
    teacher = TeacherTargets(hidden, torch.randn(384, 8, generator=torch.Generator().manual_seed(3)))
    settings: dict[str, Any] = {"objective": objective, "teacher": teacher if objective == "distill" else None}
    drafts = ids[:, 3::2].flatten()
    drafted = drafts[::3].unique()
    few = reference(input_ids=ids, labels=ids, draft_ids=drafted, **settings)
    full = reference(input_ids=ids, labels=ids, **settings)
    can_be_drafted = torch.tensor([token in drafted.tolist() for token in drafts.tolist()])
    assert can_be_drafted.any()
    assert not can_be_drafted.all()
    torch.testing.assert_close(few.acceptance, full.acceptance.where(can_be_drafted, 0.0))
    expected = F.binary_cross_entropy(few.confidence, few.acceptance)
    torch.testing.assert_close(few.confidence_loss, expected, atol=1e-5, rtol=1e-4)
    assert (few.backbone_loss, few.mtp_loss) == (full.backbone_loss, full.mtp_loss)
    assert few.confidence_loss != full.confidence_loss


@pytest.mark.parametrize("objective", ["pipo", "regular"])
def test_a_batch_without_labels_gives_every_parameter_in_use_a_zero_gradient(
    reference: Qwen3_5ForCausalPIPO, objective: str
) -> None:
    ids = torch.randint(2, 384, (1, 8), generator=torch.Generator().manual_seed(1))
    reference.zero_grad()
    output = reference(input_ids=ids, labels=torch.full_like(ids, IGNORED), objective=objective)
    output.loss.backward()
    assert output.loss.item() == 0
    unused = ("compressor.", "confidence_head.") if objective == "regular" else ()
    for name, parameter in reference.named_parameters():
        if not name.startswith(unused):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() == 0, name
    reference.zero_grad()


def test_regular_losses_equal_next_token_and_two_ahead(reference: Qwen3_5ForCausalPIPO) -> None:
    ids = torch.randint(2, 384, (2, 9), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[:, :3] = IGNORED
    output = reference(input_ids=ids, labels=labels, objective="regular", loss_weights=LossWeights(mtp=0.5))
    with torch.no_grad():
        logits = reference.forward_regular(ids)
        hidden = reference.run_backbone(reference.embed(ids))
        drafted = reference.lm_head(reference.mtp(reference.embed(ids[:, 1:]), hidden[:, :-1]))
    next_token = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    two_ahead = F.cross_entropy(drafted[:, :-1].flatten(0, 1), labels[:, 2:].flatten(), ignore_index=IGNORED)
    assert output.backbone_loss.item() == pytest.approx(next_token.item(), abs=1e-4)
    assert output.mtp_loss.item() == pytest.approx(two_ahead.item(), abs=1e-4)
    assert output.loss.item() == pytest.approx((next_token + 0.5 * two_ahead).item(), abs=1e-4)


def test_right_padding_changes_nothing(reference: Qwen3_5ForCausalPIPO) -> None:
    generator = torch.Generator().manual_seed(3)
    short = torch.randint(2, 384, (1, 10), generator=generator)
    padded = F.pad(short, (0, 6))
    labels = F.pad(short, (0, 6), value=IGNORED)
    alone = reference(input_ids=short, labels=short)
    beside = reference(input_ids=padded, labels=labels)
    assert beside.loss.item() == pytest.approx(alone.loss.item(), abs=1e-5)
