"""The divergences against direct computation in float64, in values and gradients."""

from functools import partial

import pytest
import torch

from pipo_core.model.distillation import DistillationLoss, DivergenceMode, Head, ListedTokens, distillation_loss

POSITIONS, VOCABULARY, TEMPERATURE, K = 9, 40, 1.7, 4
assert_equal = partial(torch.testing.assert_close, atol=1e-10, rtol=1e-10)


@pytest.fixture
def heads() -> tuple[Head, Head, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    student = Head(random(POSITIONS, 6).requires_grad_(), random(VOCABULARY, 6).requires_grad_())
    teacher = Head(random(POSITIONS, 8), random(VOCABULARY, 8))
    return student, teacher, torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)


def log_probabilities(head: Head) -> torch.Tensor:
    return (head.hidden @ head.weight.T / TEMPERATURE).log_softmax(-1)


def direct(mode: str, s: torch.Tensor, t: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """The divergence of each position, written down token by token; autograd makes its gradient."""
    found = []
    for p, q, y in zip(s, t, sampled.tolist(), strict=True):
        if mode == "full":
            found.append((p.exp() * (p - q)).sum())
            continue
        chosen = sorted({*p.topk(K).indices.tolist(), *q.topk(K).indices.tolist(), y})
        if mode == "topk_renormalised":
            p_chosen, q_chosen = p[chosen].log_softmax(-1), q[chosen].log_softmax(-1)
            found.append((p_chosen.exp() * (p_chosen - q_chosen)).sum())
            continue
        others = [token for token in range(VOCABULARY) if token not in chosen]
        p_rest, q_rest = p[others].exp().sum(), q[others].exp().sum()
        inside = (p[chosen].exp() * (p[chosen] - q[chosen])).sum()
        found.append(inside + p_rest * (p_rest.log() - q_rest.log()))
    return torch.stack(found)


def ours(heads: tuple[Head, Head, torch.Tensor], mode: DivergenceMode, chunk: int = 4) -> DistillationLoss:
    return distillation_loss(*heads, mode=mode, temperature=TEMPERATURE, top_k=K, chunk=chunk)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("mode", ["full", "topk", "topk_renormalised"])
def test_values_and_gradients_equal_direct_computation(
    heads: tuple[Head, Head, torch.Tensor], mode: DivergenceMode, chunk: int
) -> None:
    student, teacher, sampled = heads
    result = ours(heads, mode, chunk)
    gradients = torch.autograd.grad(3.0 * result.loss, student)
    expected = direct(mode, log_probabilities(student), log_probabilities(teacher), sampled)
    assert_equal(result.divergence, expected.detach())
    assert_equal(result.loss, expected.mean())
    for mine, theirs in zip(gradients, torch.autograd.grad(3.0 * expected.mean(), student), strict=True):
        assert_equal(mine, theirs)


def test_the_sampled_form_is_unbiased_in_value_and_in_gradient(heads: tuple[Head, Head, torch.Tensor]) -> None:
    """Its mean over every token, weighted by the student's own probability, is the exact divergence."""
    student, teacher, sampled = heads
    position = slice(0, 1)
    one = Head(student.hidden[position], student.weight), Head(teacher.hidden[position], teacher.weight)
    p = log_probabilities(one[0]).detach()[0].exp()
    exact = distillation_loss(*one, sampled[position], mode="full", temperature=TEMPERATURE)
    exact_gradient = torch.autograd.grad(exact.loss, student)
    value, gradient = torch.zeros((), dtype=torch.float64), [torch.zeros_like(tensor) for tensor in student]
    for token in range(VOCABULARY):
        estimate = distillation_loss(*one, torch.tensor([token]), mode="sampled", temperature=TEMPERATURE)
        value += p[token] * estimate.loss.detach()
        for total, part in zip(gradient, torch.autograd.grad(estimate.loss, student), strict=True):
            total += p[token] * part
    assert_equal(value, exact.loss.detach())
    for mean, theirs in zip(gradient, exact_gradient, strict=True):
        assert_equal(mean, theirs)
    assert max(float(part.abs().max()) for part in exact_gradient) > 1e-2  # a zero mean, the trap, would not do


@pytest.mark.parametrize("mode", ["topk", "topk_renormalised", "sampled"])
def test_acceptance_is_speculative_decodings(heads: tuple[Head, Head, torch.Tensor], mode: DivergenceMode) -> None:
    student, teacher, sampled = heads
    s, t = (log_probabilities(head).gather(1, sampled[:, None])[:, 0] for head in (student, teacher))
    assert_equal(ours(heads, mode).acceptance, (t - s).exp().clamp(max=1).detach())


def test_acceptance_of_the_full_form_is_its_mean_over_tokens(heads: tuple[Head, Head, torch.Tensor]) -> None:
    student, teacher, _ = heads
    p, q = log_probabilities(student).exp(), log_probabilities(teacher).exp()
    assert_equal(ours(heads, "full").acceptance, torch.minimum(p, q).sum(-1).detach())


def test_merging_tokens_into_a_bucket_only_loses(heads: tuple[Head, Head, torch.Tensor]) -> None:
    assert (ours(heads, "topk").divergence <= ours(heads, "full").divergence + 1e-12).all()


def test_the_bucket_sees_mass_outside_and_renormalising_does_not() -> None:
    """The likely tokens have the same proportions; the student wastes 40 % on the others, the teacher 1 %."""

    def spread(inside: float) -> torch.Tensor:
        likely = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64) * inside
        return torch.cat([likely, torch.full((36,), (1 - inside) / 36, dtype=torch.float64)]).log()[None]

    weight = torch.eye(VOCABULARY, dtype=torch.float64)
    student, teacher = Head(spread(0.6), weight), Head(spread(0.99), weight)
    full, bucket, renormalised = (
        float(distillation_loss(student, teacher, torch.zeros(1, dtype=torch.long), mode=mode, top_k=K).loss)
        for mode in ("full", "topk", "topk_renormalised")
    )
    assert full > 1.0
    assert bucket == pytest.approx(full)
    assert renormalised == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("mode", ["full", "topk", "topk_renormalised", "sampled"])
def test_models_that_agree_have_nothing_to_learn(mode: DivergenceMode) -> None:
    torch.manual_seed(0)
    weight = torch.randn(VOCABULARY, 6)
    hidden = torch.randn(5, 6, requires_grad=True)
    result = distillation_loss(Head(hidden, weight), Head(hidden, weight), torch.arange(5), mode=mode, top_k=K)
    result.loss.backward()
    assert result.loss.abs() < 1e-6
    assert hidden.grad is not None
    assert hidden.grad.abs().max() < 1e-6
    torch.testing.assert_close(result.acceptance, torch.ones(5))


@pytest.mark.parametrize("mode", ["full", "topk", "topk_renormalised", "sampled"])
@pytest.mark.parametrize("scale", [1e3, 1e-3])
def test_models_far_apart_give_finite_numbers(mode: DivergenceMode, scale: float) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 6, dtype=torch.bfloat16, requires_grad=True)
    student = Head(hidden, torch.randn(VOCABULARY, 6, dtype=torch.bfloat16) * scale)
    teacher = Head(torch.randn(5, 6, dtype=torch.bfloat16), torch.randn(VOCABULARY, 6, dtype=torch.bfloat16) * scale)
    result = distillation_loss(student, teacher, torch.arange(5), mode=mode, top_k=K)
    result.loss.backward()
    assert hidden.grad is not None
    assert all(bool(part.isfinite().all()) for part in (*result, hidden.grad))
    assert ((result.acceptance >= 0) & (result.acceptance <= 1 + 1e-6)).all()


def test_no_position_gives_a_zero_with_a_gradient() -> None:
    hidden = torch.zeros(0, 6, requires_grad=True)
    weight = torch.randn(VOCABULARY, 6, requires_grad=True)
    nowhere = torch.zeros(0, dtype=torch.long)
    result = distillation_loss(Head(hidden, weight), Head(torch.zeros(0, 3), torch.randn(VOCABULARY, 3)), nowhere)
    result.loss.backward()
    assert result.loss.detach() == 0.0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_a_top_k_of_the_whole_vocabulary_is_the_full_divergence(heads: tuple[Head, Head, torch.Tensor]) -> None:
    whole = distillation_loss(*heads, mode="topk", temperature=TEMPERATURE, top_k=VOCABULARY)
    assert_equal(whole.divergence, ours(heads, "full").divergence)


def test_another_vocabulary_is_refused(heads: tuple[Head, Head, torch.Tensor]) -> None:
    student, teacher, sampled = heads
    with pytest.raises(ValueError, match="vocabularies of 40 and 39"):
        distillation_loss(student, Head(teacher.hidden, teacher.weight[:-1]), sampled)


def listed(teacher: Head, further: torch.Tensor, k: int = K) -> ListedTokens:
    """What a server tells: the teacher's likeliest tokens and one more, which may be one of them."""
    t = (teacher.hidden @ teacher.weight.T).log_softmax(-1)
    ids = torch.cat([t.topk(k, dim=1).indices, further[:, None]], dim=1)
    return ListedTokens(ids, t.gather(1, ids))


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_listed_tokens_are_compared_one_by_one_and_the_rest_as_one(
    heads: tuple[Head, Head, torch.Tensor], chunk: int
) -> None:
    student, teacher, sampled = heads
    further = sampled.clone()
    further[::3] = 7  # there the sampled token is listed only if it is one of the likeliest
    told = listed(teacher, further)
    result = distillation_loss(student, told, sampled, chunk=chunk)
    gradients = torch.autograd.grad(3.0 * result.loss, student)
    s, t = ((head.hidden @ head.weight.T).log_softmax(-1) for head in (student, teacher))
    expected, acceptance = [], []
    for p, q, ids, y in zip(s, t, told.ids.tolist(), sampled.tolist(), strict=True):
        others = [token for token in range(VOCABULARY) if token not in ids]
        p_rest, q_rest = p[others].exp().sum(), q[others].exp().sum()
        inside = sum(p[token].exp() * (p[token] - q[token]) for token in sorted(set(ids)))
        expected.append(inside + p_rest * (p_rest.log() - q_rest.log()))
        acceptance.append(float((q[y] - p[y]).detach().exp().clamp(max=1)) if y in ids else 0.0)
    mean = torch.stack(expected).mean()
    assert 0.0 in acceptance
    assert_equal(result.divergence, torch.stack(expected).detach())
    assert_equal(result.acceptance, torch.tensor(acceptance, dtype=torch.float64))
    for mine, theirs in zip(gradients, torch.autograd.grad(3.0 * mean, student), strict=True):
        assert_equal(mine, theirs)


def test_listed_tokens_that_hold_the_students_likeliest_give_what_the_teachers_head_gives(
    heads: tuple[Head, Head, torch.Tensor],
) -> None:
    """A student near its teacher has the same likeliest tokens: then both forms of topk are one."""
    _, teacher, sampled = heads
    nudged = teacher.hidden + 1e-3 * torch.randn(teacher.hidden.shape, dtype=torch.float64)
    student = Head(nudged.requires_grad_(), teacher.weight.clone().requires_grad_())
    here = distillation_loss(student, teacher, sampled, top_k=K)
    there = distillation_loss(student, listed(teacher, sampled), sampled)
    assert_equal(here.divergence, there.divergence)
    assert_equal(here.acceptance, there.acceptance)
    for one, other in zip(*(torch.autograd.grad(loss.loss, student) for loss in (here, there)), strict=True):
        assert_equal(one, other)
    whole = listed(teacher, sampled, k=VOCABULARY)
    exact = distillation_loss(student, teacher, sampled, mode="full")
    assert_equal(distillation_loss(student, whole, sampled).divergence, exact.divergence)


def test_a_rest_of_nothing_gives_finite_numbers() -> None:
    """A teacher that is all but sure leaves no mass that a sum of rounded numbers could show."""
    hidden = torch.randn(1, 6, requires_grad=True)
    weight = torch.randn(VOCABULARY, 6)
    sure = ListedTokens(torch.tensor([[3, 4, 3]]), torch.tensor([[0.0, -30.0, 0.0]]))
    result = distillation_loss(Head(hidden, weight), sure, torch.tensor([9]))
    result.loss.backward()
    assert result.loss.isfinite()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert result.acceptance.item() < 1e-20


def test_listed_tokens_are_compared_by_topk_at_temperature_1_alone(heads: tuple[Head, Head, torch.Tensor]) -> None:
    student, teacher, sampled = heads
    for options in ({"mode": "full"}, {"temperature": 0.7}):
        with pytest.raises(ValueError, match="topk at temperature 1"):
            distillation_loss(student, listed(teacher, sampled), sampled, **options)
