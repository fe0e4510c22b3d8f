"""Pair decoding against the full forward pass, on the authors' reference weights."""

from collections.abc import Callable, Iterator

import pytest
import torch

from pipo_core.decode import pair
from pipo_core.decode.method import StepOutput
from pipo_core.decode.pair import PairMethod
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO

PAD = 0
GREEDY = SamplingParams(temperature=0.0)
Prompt = list[int]


class Projected:
    """Records how many sequences each call of the LM head projects, and the logits."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.logits.append(output.clone())


@pytest.fixture
def projected(reference: Qwen3_5ForCausalPIPO) -> Iterator[Projected]:
    recorder = Projected()
    handle = reference.lm_head.register_forward_hook(recorder)
    yield recorder
    handle.remove()


@pytest.fixture
def prompts(random_ids: Callable[[int, int], Prompt]) -> list[Prompt]:
    return [random_ids(length, seed) for seed, length in enumerate((7, 2, 12, 1, 33))]


def decode(
    model: Qwen3_5ForCausalPIPO,
    prompts: list[Prompt],
    tau: float,
    slots: int,
    sampling: SamplingParams = GREEDY,
    end_ids: frozenset[int] = frozenset(),
) -> tuple[list[list[int]], list[StepOutput]]:
    """Return each sequence's ids with PADs, prompt included, and what every step wrote."""
    settings = PrefillSettings([sampling] * len(prompts), [end_ids] * len(prompts), reserved_positions=2)
    method = PairMethod(model, PAD, tau=tau)
    state, output = method.prefill(prompts, settings)
    steps = [output] + [method.step(state) for _ in range(slots - 1)]
    sequences = []
    for sequence, prompt in enumerate(prompts):
        ids = prompt + [PAD] * (len(prompt) % 2)
        for step in steps:
            ids += [int(step.first[sequence]), int(step.tokens[sequence, 1])]
        sequences.append(ids)
    return sequences, steps


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_incremental_decoding_equals_the_full_pass(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt], tau: float
) -> None:
    sequences, steps = decode(reference, prompts, tau, slots=8)
    for sequence, (ids, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        with torch.no_grad():
            full = reference.forward_pairs(torch.tensor([ids]))
        start = (len(prompt) + 1) // 2 - 1
        for number, step in enumerate(steps):
            slot = start + number
            assert step.first[sequence] == full.backbone_logits[0, slot].argmax()
            if tau < 1:
                assert step.confidence is not None
                torch.testing.assert_close(step.confidence[sequence], full.confidence[0, slot], atol=1e-4, rtol=0)
                if step.counts[sequence] == 2:
                    assert step.tokens[sequence, 1] == full.mtp_logits[0, slot].argmax()


def test_logits_of_both_heads_equal_the_full_pass(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], Prompt], projected: Projected
) -> None:
    prompt = random_ids(9, 4)
    sequences, _ = decode(reference, [prompt], tau=0.0, slots=6)
    incremental = [logits[0] for logits in projected.logits]
    with torch.no_grad():
        full = reference.forward_pairs(torch.tensor(sequences))
    start = (len(prompt) + 1) // 2 - 1
    for number in range(6):
        backbone, draft = incremental[2 * number : 2 * number + 2]
        torch.testing.assert_close(backbone, full.backbone_logits[0, start + number], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(draft, full.mtp_logits[0, start + number], atol=1e-4, rtol=1e-4)


def test_threshold_zero_keeps_every_draft_and_one_keeps_none(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, steps = decode(reference, prompts, tau=0.0, slots=5)
    assert all(bool((step.counts == 2).all()) for step in steps)

    def must_not_run(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("the MTP block ran although no draft can be kept")

    monkeypatch.setattr(reference.mtp, "forward", must_not_run)
    monkeypatch.setattr(reference.mtp, "keys_and_values", must_not_run)
    sequences, steps = decode(reference, prompts, tau=1.0, slots=5)
    assert all(bool((step.counts == 1).all()) for step in steps)
    for ids, prompt in zip(sequences, prompts, strict=True):
        assert ids[len(prompt) + len(prompt) % 2 :][1::2] == [PAD] * 5


def test_saturated_confidence_is_still_dropped_at_one(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference.confidence_head, "forward", lambda h, m: torch.full((h.shape[0],), 99.0))
    _, steps = decode(reference, prompts, tau=1.0, slots=3)
    assert all(bool((step.counts == 1).all()) for step in steps)


def test_rejected_sequences_are_not_projected(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt], projected: Projected
) -> None:
    _, steps = decode(reference, prompts, tau=0.3, slots=6)
    kept = [int((step.counts == 2).sum()) for step in steps]
    assert 0 < sum(kept) < 6 * len(prompts)
    expected = [size for count in kept for size in ([len(prompts), count] if count else [len(prompts)])]
    assert [logits.shape[0] for logits in projected.logits] == expected


def test_a_sequence_does_not_depend_on_its_batch(reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt]) -> None:
    sampling = SamplingParams(temperature=1.0, top_p=0.9, top_k=50, presence_penalty=1.0, seed=11)
    together, _ = decode(reference, prompts, 0.3, 10, sampling)
    for prompt, ids in zip(prompts, together, strict=True):
        assert decode(reference, [prompt], 0.3, 10, sampling)[0][0] == ids


def test_sequences_join_and_leave_a_running_batch(reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt]) -> None:
    alone = [decode(reference, [prompt], 0.3, 9)[0][0] for prompt in prompts]
    method = PairMethod(reference, PAD, tau=0.3)

    def settings(count: int) -> PrefillSettings:
        return PrefillSettings([GREEDY] * count, reserved_positions=1)

    written: dict[int, list[int]] = {sequence: [] for sequence in range(len(prompts))}

    def take(names: list[int], output: StepOutput) -> None:
        for position, name in enumerate(names):
            written[name] += [int(output.first[position]), int(output.tokens[position, 1])]

    names = [0, 1]
    state, output = method.prefill(prompts[:2], settings(2))
    take(names, output)
    take(names, method.step(state))
    late, output = method.prefill(prompts[2:], settings(3))
    take([2, 3, 4], output)
    state.join(late)
    names = [0, 1, 2, 3, 4]
    for leaving in ([4, 1, 2, 3], [3, 1, 2]):  # the last sequences fill the holes of those that leave
        take(names, method.step(state))
        state.keep(leaving)
        names = [names[sequence] for sequence in leaving]
    for _ in range(3):
        take(names, method.step(state))
    for sequence, prompt in enumerate(prompts):
        start = len(prompt) + len(prompt) % 2
        assert len(written[sequence]) >= 4
        assert written[sequence] == alone[sequence][start : start + len(written[sequence])]


def test_draft_after_an_end_token_is_dropped(reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt]) -> None:
    _, free = decode(reference, prompts, tau=0.0, slots=1)
    ends = frozenset({int(free[0].first[0])})
    _, steps = decode(reference, prompts, tau=0.0, slots=1, end_ids=ends)
    for sequence in range(len(prompts)):
        assert bool(steps[0].counts[sequence] == 2) == (int(free[0].first[sequence]) not in ends)


def test_the_draft_is_penalised_for_the_first_token_of_its_own_step(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt]
) -> None:
    never_again = SamplingParams(temperature=0.0, presence_penalty=1e6)
    sequences, _ = decode(reference, prompts, 0.0, 12, never_again)
    for ids, prompt in zip(sequences, prompts, strict=True):
        output = ids[len(prompt) + len(prompt) % 2 :]
        assert len(set(output)) == len(output) == 24


def test_rejected_drafts_are_neither_penalised_nor_counted(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt]
) -> None:
    rewarded = SamplingParams(temperature=0.0, frequency_penalty=-1e3)  # a PAD that were counted would be repeated
    sequences, steps = decode(reference, prompts, 0.3, 12, rewarded)
    kept = torch.stack([step.counts == 2 for step in steps])
    assert 0 < kept.sum() < kept.numel()
    for sequence, (ids, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        output = ids[len(prompt) + len(prompt) % 2 :]
        real = [
            token
            for slot, pair_ids in enumerate(zip(output[::2], output[1::2], strict=True))
            for token in (pair_ids if kept[slot, sequence] else pair_ids[:1])
        ]
        assert PAD not in real
        assert len(set(real)) == 1  # the reward repeats the first token, never the PAD beside it


@pytest.mark.parametrize("sample_rejected", [False, True])
def test_projecting_sequences_that_nobody_wants_changes_nothing(
    reference: Qwen3_5ForCausalPIPO, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, sample_rejected: bool
) -> None:
    """As on a GPU with several sequences, where nobody waits to learn which drafts are wanted."""
    sampling = [
        SamplingParams(top_k=30, presence_penalty=0.8, frequency_penalty=0.3, seed=sequence)
        for sequence in range(len(prompts))
    ]

    def texts() -> list[tuple[list[list[int]], list[int]]]:
        settings = PrefillSettings(sampling, [frozenset({7})] * len(prompts), reserved_positions=2)
        method = PairMethod(reference, PAD, tau=0.45, sample_rejected=sample_rejected)
        state, output = method.prefill(prompts, settings)
        steps = [output, *(method.step(state) for _ in range(12))]
        return [(step.tokens.tolist(), step.counts.tolist()) for step in steps]

    chosen = texts()
    counts = {count for _, sequence in chosen for count in sequence}
    assert counts == {1, 2}, "the gate must keep some drafts and drop some"
    monkeypatch.setattr(pair, "_can_choose", lambda drafted: False)
    assert texts() == chosen
