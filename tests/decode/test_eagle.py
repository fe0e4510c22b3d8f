"""Speculative decoding writes what regular decoding writes."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from pipo_core.decode.eagle import EagleMethod, EagleState
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.regular import RegularMethod
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.recipes.locate import bundled_model
from tests.decode.methods import PAD, decode

Prompt = list[int]
SAMPLINGS = [
    SamplingParams(temperature=0.0),
    SamplingParams(seed=5),
    SamplingParams(top_k=12, top_p=0.9, seed=7),
    SamplingParams(temperature=0.6, presence_penalty=1.0, frequency_penalty=0.4, repetition_penalty=1.2, seed=8),
]


@pytest.fixture(scope="module")
def student() -> Qwen3_5ForCausalPIPO:
    """A model with a trained MTP head, so that drafts are accepted; fp64 keeps near ties from deciding."""
    return load_checkpoint(bundled_model("tiny-student"), dtype=torch.float64)


def with_eagle(
    model: Qwen3_5ForCausalPIPO, drafts: int, prompts: list[Prompt], tokens: int, params: list[SamplingParams]
) -> tuple[list[Prompt], int]:
    return decode(EagleMethod(model, PAD, drafts=drafts), prompts, tokens, params)


def with_regular(
    model: Qwen3_5ForCausalPIPO, prompts: list[Prompt], tokens: int, params: list[SamplingParams]
) -> list[Prompt]:
    return decode(RegularMethod(model, PAD), prompts, tokens, params)[0]


@pytest.mark.parametrize("drafts", [1, 2, 3, 5])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_seed_gives_the_text_of_regular_decoding(
    student: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], Prompt], drafts: int, sampling: SamplingParams
) -> None:
    prompts = [random_ids(length, length) for length in (9, 1, 30, 2)]
    prompts = [[token % student.config.vocab_size for token in prompt] for prompt in prompts]
    params = [sampling] * len(prompts)
    found, steps = with_eagle(student, drafts, prompts, 40, params)
    assert found == with_regular(student, prompts, 40, params)
    if sampling.temperature == 0:
        assert steps < 40, "no draft was ever accepted, so nothing was tried"


def test_most_drafts_of_a_trained_head_are_accepted(student: Qwen3_5ForCausalPIPO) -> None:
    prompts = [[(7 * place) % student.config.vocab_size for place in range(20)]]
    _, steps = with_eagle(student, 3, prompts, 60, [SAMPLINGS[0]])
    assert steps <= 40


def test_drafts_are_those_of_a_chain_over_everything_before(
    student: Qwen3_5ForCausalPIPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was rejected before, no draft sees an entry that stems from the block's own earlier outputs."""
    drafted: list[list[int]] = []
    draft = EagleMethod._draft

    def drafts_that_fail_at_times(method: EagleMethod, state: EagleState) -> torch.Tensor:
        drafted.append(draft(method, state)[0].tolist())
        return draft_of(drafted)

    monkeypatch.setattr(EagleMethod, "_draft", drafts_that_fail_at_times)
    method = EagleMethod(student, PAD, drafts=3)
    prompt, wrong = [3, 4, 5, 6, 7], [1, 1, 1]

    def draft_of(found: list[list[int]]) -> torch.Tensor:
        """Every other step's drafts are replaced by ones that will be rejected."""
        return torch.tensor([wrong if len(found) % 2 else found[-1]])

    state, emitted = method.prefill([prompt], PrefillSettings([SAMPLINGS[1]], reserved_positions=1))
    ids = [*prompt, int(emitted.first[0])]
    for step in range(8):
        expected = _chain(student, ids, 3)
        emitted = method.step(state)
        assert drafted[step] == expected
        ids += emitted.tokens[0, : int(emitted.counts[0])].tolist()


def _chain(model: Qwen3_5ForCausalPIPO, ids: Prompt, drafts: int) -> Prompt:
    """Greedy drafts behind ``ids``, each from a pass of the MTP block over all positions."""
    found: Prompt = []
    with torch.no_grad():
        hidden = model.run_backbone(model.embed(torch.tensor([ids[:-1]])))
        for _ in range(drafts):
            out = model.mtp(model.embed(torch.tensor([[*ids[1:], *found]])), hidden)
            found.append(int(model.lm_head(out[0, -1]).argmax()))
            hidden = torch.cat([hidden, out[:, -1:]], dim=1)  # m_j in place of a hidden state that is not there yet
    return found


def test_untrained_drafts_change_nothing(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], Prompt]
) -> None:
    """Where every draft is wrong, every state is rolled back to the one accepted position."""
    model = reference.double()
    try:
        prompts = [random_ids(length, length) for length in (5, 14)]
        params = [SamplingParams(seed=sequence) for sequence in range(2)]
        found, _ = with_eagle(model, 3, prompts, 24, params)
        assert found == with_regular(model, prompts, 24, params)
    finally:
        reference.float()


@pytest.mark.parametrize("share", [0.0, 0.5, 2 / 3, 1.0])
def test_a_bench_may_take_a_share_of_the_drafts(student: Qwen3_5ForCausalPIPO, share: float) -> None:
    """40 tokens need the prompt's step and then ``39 / (1 + 3 · share)`` more, up to a whole step."""
    prompts = [[(7 * place + first) % student.config.vocab_size for place in range(20)] for first in range(3)]
    method = EagleMethod(student, PAD, drafts=3, acceptance=share)
    written, taken = decode(method, prompts, 40, [SamplingParams(seed=seed) for seed in range(3)])
    assert abs(taken - 1 - 39 / (1 + 3 * share)) <= 1
    if share == 0:  # nothing is taken unseen, so the text is the model's
        params = [SamplingParams(seed=seed) for seed in range(3)]
        assert written == with_regular(student, prompts, 40, params)


def test_sequences_join_and_leave(student: Qwen3_5ForCausalPIPO) -> None:
    first, second = [3, 4, 5, 6, 7], [9, 8]
    params = [SamplingParams(seed=1), SamplingParams(seed=2)]
    alone = [
        with_regular(student, [prompt], 30, [sampling])[0]
        for prompt, sampling in zip((first, second), params, strict=True)
    ]
    method = EagleMethod(student, PAD, drafts=3)
    state, emitted = method.prefill([first], PrefillSettings(params[:1], reserved_positions=1))
    written = [emitted.tokens[0, :1].tolist(), []]
    for _ in range(3):
        emitted = method.step(state)
        written[0] += emitted.tokens[0, : int(emitted.counts[0])].tolist()
    other, emitted = method.prefill([second], PrefillSettings(params[1:], reserved_positions=1))
    written[1] += emitted.tokens[0, :1].tolist()
    state.join(other)
    while min(map(len, written)) < 30:
        emitted = method.step(state)
        for sequence in range(2):
            written[sequence] += emitted.tokens[sequence, : int(emitted.counts[sequence])].tolist()
    assert [sequence[:30] for sequence in written] == alone


@pytest.mark.parametrize(
    "sampling", [SamplingParams(temperature=1.3), SamplingParams(temperature=0.9, top_k=3), SamplingParams(top_p=0.7)]
)
def test_the_distribution_of_texts_is_the_models_own(sampling: SamplingParams) -> None:
    """Frequencies of all texts of three tokens against their enumerated probabilities (chi-square)."""
    model = _small_vocabulary()
    sequences, prompt = 1500, [1, 2, 3]
    params = [
        SamplingParams(sampling.temperature, sampling.top_p, sampling.top_k, seed=sequence)
        for sequence in range(sequences)
    ]
    found, _ = with_eagle(model, 2, [prompt] * sequences, 3, params)
    counts = Counter(map(tuple, found))
    expected = {text: _probability(model, prompt, text, sampling) for text in product(range(5), repeat=3)}
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-6)
    assert all(expected[text] > 0 for text in counts)
    likely = [text for text, probability in expected.items() if probability * sequences >= 5]
    rest = sequences - sum(counts[text] for text in likely), sequences * (1 - sum(expected[text] for text in likely))
    cells = [(counts[text], sequences * expected[text]) for text in likely] + ([rest] if rest[1] > 5 else [])
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in cells)
    freedom = len(cells) - 1
    assert freedom >= 8, "too few texts are likely for the test to mean anything"
    assert abs(statistic - freedom) / (2 * freedom) ** 0.5 < 3.5


def _small_vocabulary() -> Qwen3_5ForCausalPIPO:
    """Return a random model of five tokens whose distributions are far from flat."""
    config = load_checkpoint(Path(__file__).parent.parent / "fixtures" / "reference-a").config
    config.vocab_size = 5
    torch.manual_seed(4)
    model: Qwen3_5ForCausalPIPO = Qwen3_5ForCausalPIPO(config).double().eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(5, config.hidden_size, dtype=torch.float64) * 0.1)
    return model


def _probability(model: Qwen3_5ForCausalPIPO, prompt: Prompt, text: tuple[int, ...], sampling: SamplingParams) -> float:
    """Return the probability of a text: temperature, the k most likely, then the smallest set that reaches p."""
    total = 1.0
    with torch.no_grad():
        logits = model.forward_regular(torch.tensor([[*prompt, *text]]))[0, len(prompt) - 1 : -1]
    for scores, token in zip(logits / sampling.temperature, text, strict=True):
        order = scores.argsort(descending=True).tolist()[: sampling.top_k or None]
        p = scores[order].softmax(-1).tolist()
        kept = [place for place in range(len(p)) if sum(p[:place]) < sampling.top_p]
        chances = {order[place]: p[place] / sum(p[place] for place in kept) for place in kept}
        total *= chances.get(token, 0.0)
    return total
