"""Decoding with adapters around the layers, as a student decodes while it is distilled."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipo_core.decode.pair import PairMethod
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.regular import RegularMethod
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model import Qwen3_5ForCausalPIPO

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture
def adapted(reference: Qwen3_5ForCausalPIPO) -> Qwen3_5ForCausalPIPO:
    """The reference model with adapters that change its logits."""
    torch.manual_seed(0)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=4, target_modules=names, modules_to_save=["compressor", "confidence_head", "mtp.fc"])
    wrapped = get_peft_model(copy.deepcopy(reference), config).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted: Qwen3_5ForCausalPIPO = wrapped.get_base_model()
    return adapted


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_pairs_equal_the_full_pass_with_its_adapters(
    adapted: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]], tau: float
) -> None:
    ids = random_ids(8, 1)
    method = PairMethod(adapted, 0, tau=tau)
    state, emitted = method.prefill([ids], PrefillSettings([GREEDY], reserved_positions=1))
    for slot in range(3, 9):
        ids = [*ids, int(emitted.tokens[0, 0]), int(emitted.tokens[0, 1]) if int(emitted.counts[0]) == 2 else 0]
        with torch.no_grad():
            full = adapted.forward_pairs(torch.tensor([ids]))
        assert int(emitted.tokens[0, 0]) == int(full.backbone_logits[0, slot].argmax())
        assert emitted.confidence is not None
        torch.testing.assert_close(emitted.confidence, full.confidence[:, slot].float(), atol=1e-5, rtol=1e-4)
        emitted = method.step(state)


def test_tokens_equal_the_full_pass_with_its_adapters(
    adapted: Qwen3_5ForCausalPIPO, random_ids: Callable[[int, int], list[int]]
) -> None:
    ids = random_ids(5, 2)
    method = RegularMethod(adapted, 0)
    state, emitted = method.prefill([ids], PrefillSettings([GREEDY], reserved_positions=1))
    for _ in range(8):
        with torch.no_grad():
            expected = int(adapted.forward_regular(torch.tensor([ids]))[0, -1].argmax())
        assert int(emitted.first[0]) == expected
        ids = [*ids, expected]
        emitted = method.step(state)
