"""Unverified decoding against whole passes over the same ids."""

from collections.abc import Callable

import pytest
import torch

from pipo_core.decode.mtp import MTPMethod
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO
from tests.decode.methods import PAD, decode

GREEDY = SamplingParams(temperature=0.0)


def slowly(model: Qwen3_5ForCausalPIPO, prompt: list[int], tokens: int) -> list[int]:
    """Greedy text, every pair from a pass over everything before it."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + tokens:
            hidden = model.run_backbone(model.embed(torch.tensor([ids])))
            ids.append(int(model.lm_head(hidden[0, -1]).argmax()))
            drafted = model.mtp(model.embed(torch.tensor([ids[1:]])), hidden)
            ids.append(int(model.lm_head(drafted[0, -1]).argmax()))
    return ids[len(prompt) :][:tokens]


def test_two_tokens_a_step_equal_whole_passes(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    prompts = [random_ids(length, length) for length in (6, 1, 15)]
    found, steps = decode(MTPMethod(reference, PAD), prompts, 14, [GREEDY] * 3)
    assert steps == 7
    assert found == [slowly(reference, prompt, 14) for prompt in prompts]


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(top_k=9, presence_penalty=0.7, seed=2)])
def test_a_sequence_does_not_depend_on_its_batch(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], sampling: SamplingParams
) -> None:
    prompts = [random_ids(length, length) for length in (6, 1, 15)]
    method = MTPMethod(reference, PAD)
    together, _ = decode(method, prompts, 12, [sampling] * 3)
    assert together == [decode(method, [prompt], 12, [sampling])[0][0] for prompt in prompts]
