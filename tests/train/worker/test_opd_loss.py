"""Distillation's loss and gradient against a slow loop."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipo_core.data.augment import IGNORED
from pipo_core.model import LossWeights, TeacherTargets, load_checkpoint
from pipo_core.train.worker.opd_examples import collate_rollouts, without_pads
from tests.train.trainings import (
    PAD,
    some_rollouts,
)


def test_the_loss_and_its_gradient_are_those_of_a_slow_loop(student: Path, teacher: Path) -> None:
    model, other = load_checkpoint(student).double(), load_checkpoint(teacher).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    rows = some_rollouts()
    batch = collate_rollouts(rows, PAD)
    text, positions = without_pads(batch.input_ids, batch.pads)
    hidden = other.run_backbone(other.embed(text)).detach()
    hidden = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
    weights = LossWeights(mtp=0.7, confidence=0.3, chunk=2)
    targets = TeacherTargets(hidden, other.lm_head.weight, "full", 1.5)
    output = model(
        input_ids=batch.input_ids, labels=batch.labels, objective="distill", loss_weights=weights, teacher=targets
    )
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()

    first: list[torch.Tensor] = []
    draft: list[torch.Tensor] = []
    gate: list[torch.Tensor] = []
    for row in rows:
        ids = torch.tensor([row.input_ids])
        made = model.forward_pairs(ids)
        for place, label in enumerate(row.labels):
            if label == IGNORED:
                continue
            slot = place // 2 - 1
            before = [t for t, pad in zip(row.input_ids[:place], row.pads[:place], strict=True) if not pad]
            with torch.no_grad():
                t = (other.forward_regular(torch.tensor([before]))[0, -1] / 1.5).log_softmax(-1)
            scores = made.mtp_logits[0, slot] if place % 2 else made.backbone_logits[0, slot]
            s = (scores / 1.5).log_softmax(-1)
            (draft if place % 2 else first).append((s.exp() * (s - t)).sum())
            if place % 2:
                h, m = made.backbone_hidden[0, slot].detach(), made.mtp_hidden[0, slot].detach()
                accepted = torch.minimum(s, t).exp().sum().detach()
                logit = model.confidence_head(h, m)
                gate.append(F.binary_cross_entropy_with_logits(logit, accepted.to(logit.dtype)))
    assert (len(first), len(draft)) == (6, 5)
    parts = [torch.stack(part).mean() for part in (first, draft, gate)]
    expected = parts[0] + 0.7 * parts[1] + 0.3 * parts[2]
    expected.backward()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.backbone_loss.item() == pytest.approx(parts[0].item(), rel=1e-8)
    assert output.mtp_loss.item() == pytest.approx(parts[1].item(), rel=1e-8)
    for name, weight in model.named_parameters():
        assert (gradients[name] - weight.grad).abs().max() < 1e-5 * max(1.0, weight.grad.abs().max()), name


@pytest.mark.parametrize("places", [(), (4,)], ids=["no label", "no draft"])
def test_a_batch_without_labels_gives_zero_gradients_to_everything(
    student: Path, teacher: Path, places: tuple[int, ...]
) -> None:
    model = load_checkpoint(student)
    ids = torch.randint(0, 256, (2, 10), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, list(places)] = ids[:, list(places)]
    targets = TeacherTargets(torch.randn(2, 10, 32), load_checkpoint(teacher).lm_head.weight.detach())
    output = model(input_ids=ids, labels=labels, objective="distill", teacher=targets)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    still = {name.partition(".")[0] for name, gradient in gradients.items() if not gradient.any()}
    assert {"mtp", "confidence_head"} <= still
    if not places:
        assert output.loss == 0
        assert not any(gradient.any() for gradient in gradients.values())
    with pytest.raises(ValueError, match="teacher"):
        model(input_ids=ids, labels=labels, objective="distill")
