"""A reduced draft vocabulary against the full head with the other logits left out."""

from collections.abc import Callable

import pytest
import torch

from pipo_core.decode import backbone
from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.pair import PairMethod
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.sampling import Sampler, SamplingParams
from pipo_core.errors import UsageError
from pipo_core.model import Qwen3_5ForCausalPIPO

PAD = 0
ENDS = frozenset({0, 1})
FREQUENT = [7, 300, 5, 1, 9, 120, 44, 383, 2, 11]
SAMPLINGS = [
    SamplingParams(temperature=0.0, repetition_penalty=1.7),
    SamplingParams(seed=3),
    SamplingParams(top_k=4, presence_penalty=1.5, seed=4),
    SamplingParams(top_p=0.6, frequency_penalty=0.8, temperature=2.0, seed=5),
]


class Masked:
    """A draft vocabulary that projects to all ids and takes out those that are not in it."""

    ids = None

    def __init__(self, few: DraftVocab) -> None:
        self.kept = few.ids

    def logits(self, model: Qwen3_5ForCausalPIPO, hidden: torch.Tensor) -> torch.Tensor:
        full = backbone.lm_head(model, hidden)
        masked = torch.full_like(full, -torch.inf)
        masked[:, self.kept] = full[:, self.kept]
        return masked


def test_samples_equal_those_of_the_masked_full_head(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    few = DraftVocab(reference, 9, FREQUENT, ENDS)
    prompts = [random_ids(length, length) for length in (5, 8, 2, 13)]
    settings = PrefillSettings(SAMPLINGS, [ENDS] * 4)
    written = []
    for vocabulary in (few, Masked(few), None):
        method = PairMethod(reference, PAD, tau=0.0, draft_vocab=vocabulary)  # type: ignore[arg-type]  # Masked stands in
        state, output = method.prefill(prompts, settings)
        written.append([output.tokens] + [method.step(state).tokens for _ in range(12)])
    ours, masked, full = (torch.stack(slots) for slots in written)
    assert torch.equal(ours, masked)
    assert not torch.equal(ours, full)
    assert set(ours[..., 1].flatten().tolist()) <= {*few.ids.tolist(), PAD}


def test_the_sampler_weighs_penalties_of_the_tokens_themselves() -> None:
    params = [SamplingParams(top_k=3, presence_penalty=2.0, repetition_penalty=1.3, seed=seed) for seed in range(64)]
    sampler = Sampler(params, [[4, 6]] * 64, 50, torch.device("cpu"))
    sampler.count(torch.arange(64) % 50)
    ids = torch.tensor([3, 4, 6, 20, 33])
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    masked = torch.full_like(logits, -torch.inf)
    masked[:, ids] = logits[:, ids]
    assert torch.equal(sampler.sample(logits[:, ids], 1, vocabulary=ids), sampler.sample(masked, 1))


def test_ends_come_first_and_fewer_ids_than_asked_for_will_do(reference: Qwen3_5ForCausalPIPO) -> None:
    assert DraftVocab(reference, 4, FREQUENT, ENDS).ids.tolist() == [0, 1, 7, 300]
    assert DraftVocab(reference, 100, FREQUENT, ENDS).ids.tolist() == sorted({*FREQUENT, *ENDS})


def test_an_impossible_vocabulary_is_refused(reference: Qwen3_5ForCausalPIPO) -> None:
    with pytest.raises(UsageError, match="no room for the 2 ids"):
        DraftVocab(reference, 1, FREQUENT, ENDS)
    with pytest.raises(UsageError, match="a draft vocabulary of 385 is larger than the model's, which has 384 ids"):
        DraftVocab(reference, 385, FREQUENT, ENDS)
    with pytest.raises(UsageError, match="outside the model's 384"):
        DraftVocab(reference, 4, [384], ENDS)
