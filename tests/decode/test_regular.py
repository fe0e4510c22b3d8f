"""Regular decoding against the full forward pass and against transformers' own `generate`."""

from collections.abc import Callable

import torch
from transformers import Qwen3_5ForCausalLM

from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.regular import RegularMethod
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO, save_checkpoint


def decode(
    model: Qwen3_5ForCausalPIPO, prompts: list[list[int]], tokens: int, params: SamplingParams
) -> list[list[int]]:
    settings = PrefillSettings([params] * len(prompts), reserved_positions=1)
    method = RegularMethod(model, 0)
    state, output = method.prefill(prompts, settings)
    columns = [output.first] + [method.step(state).first for _ in range(tokens - 1)]
    return torch.stack(columns, dim=1).tolist()


def test_greedy_equals_transformers_generate(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], tmp_path: object
) -> None:
    stock = Qwen3_5ForCausalLM.from_pretrained(save_checkpoint(reference, f"{tmp_path}/base", layout="base"))
    prompts = [random_ids(length, length) for length in (5, 1, 14)]
    ours = decode(reference, prompts, 12, SamplingParams(temperature=0.0))
    for prompt, sequence in zip(prompts, ours, strict=True):
        theirs = stock.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
        assert sequence == theirs[0, len(prompt) :].tolist()


def test_a_sequence_does_not_depend_on_its_batch(
    reference: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    prompts = [random_ids(length, length) for length in (5, 1, 14)]
    params = SamplingParams(top_k=30, top_p=0.9, frequency_penalty=0.5, seed=3)
    together = decode(reference, prompts, 12, params)
    assert together == [decode(reference, [prompt], 12, params)[0] for prompt in prompts]
