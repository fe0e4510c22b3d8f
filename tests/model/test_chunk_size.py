"""Chunks chosen from the free memory: how large they are, and that losses do not depend on them."""

import pytest
import torch

from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO, TeacherTargets, chunk_size
from pipo_core.model.chunk_size import MOST, MOST_OF_DIVERGENCE, positions_at_once

QWEN = torch.empty(248_320, 1, device="meta")
GIB = 2**30


def give(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(chunk_size, "free_bytes", lambda device: int(free))


def test_a_chunk_takes_at_most_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (64 * GIB, 8 * GIB, 5 * GIB, 2 * GIB, GIB, 0.3 * GIB):
        give(monkeypatch, free)
        for most, each in ((MOST, 6), (MOST_OF_DIVERGENCE, 12)):
            positions = positions_at_once(QWEN, most=most, bytes_each=each)
            fits = positions * 248_320 * each <= free / 2
            assert fits or positions == 32
            assert positions == most or 2 * positions * 248_320 * each > free / 2, "twice as many would fit"
    give(monkeypatch, 64 * GIB)
    assert positions_at_once(QWEN, most=MOST, bytes_each=6) == MOST
    give(monkeypatch, 0)
    assert positions_at_once(QWEN, most=MOST, bytes_each=6) == 32


def test_the_gradient_of_a_head_that_trains_is_left_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 16 * GIB)
    frozen = torch.empty(248_320, 2560, device="meta")
    assert positions_at_once(frozen, most=MOST, bytes_each=6) == MOST
    give(monkeypatch, 8 * GIB)
    assert positions_at_once(frozen.requires_grad_(), most=MOST, bytes_each=6) < MOST


def test_losses_do_not_depend_on_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, reference: Qwen3_5ForCausalPIPO
) -> None:
    torch.manual_seed(1)
    ids = torch.randint(3, 300, (3, 120))
    targets = TeacherTargets(torch.randn(3, 120, 16), torch.randn(reference.config.vocab_size, 16))
    asked: list[int] = []
    choose = chunk_size.positions_at_once

    def remembered(weight: torch.Tensor, **options: int) -> int:
        asked.append(choose(weight, **options))
        return asked[-1]

    monkeypatch.setattr("pipo_core.model.modeling.positions_at_once", remembered)
    for objective, teacher in (("pipo", None), ("regular", None), ("distill", targets)):
        found = []
        for free in (64 * GIB, 0):
            give(monkeypatch, free)
            reference.zero_grad()
            loss = reference(
                input_ids=ids, labels=ids, objective=objective, loss_weights=LossWeights(), teacher=teacher
            ).loss
            loss.backward()
            gradients = [p.grad.clone() for p in reference.parameters() if p.grad is not None]
            found.append((loss.detach(), gradients))
        (one, ours), (other, theirs) = found
        torch.testing.assert_close(one, other)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-4)
    reference.zero_grad()
    assert {*asked} == {MOST, MOST_OF_DIVERGENCE, 32}
