"""Limits against published figures, and counts of weights against the models themselves."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.bench.roofline import DEVICES, Device, known_device, prefill_flops, step_limit, tpot_limit
from pipo_core.decode.method import StepLoad
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import SamplingParams
from pipo_core.decode.traffic import kept_bytes, resident_bytes, step_bytes, step_parts
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.shapes import shape_config
from pipo_core.model.sizes import BF16, FP32, INT8, model_sizes
from pipo_core.recipes.methods import METHODS, MethodName

H200 = DEVICES["H200"]
B4, B9, B08 = (shape_config(f"qwen3.5-{size}") for size in ("4b", "9b", "0.8b"))


@pytest.mark.parametrize("name", ["qwen3.5-0.8b", "qwen3.5-4b", "qwen3.5-9b"])
def test_parts_are_those_of_the_model(name: str) -> None:
    config = shape_config(name)
    with torch.device("meta"):
        model = Qwen3_5ForCausalPIPO(config)

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    found = model_sizes(config)
    assert found.layers == count(model.text_model) - config.vocab_size * config.hidden_size
    assert found.head == count(model.lm_head)
    assert (found.compressor, found.mtp) == (count(model.compressor), count(model.mtp))
    assert found.confidence == count(model.confidence_head)


@pytest.mark.parametrize(
    ("config", "tokens_per_second", "every", "reduced"), [(B4, 571, 1.68, 1.89), (B9, 302, 1.70, 1.88)]
)
def test_tokens_a_second_at_batch_one_on_an_h200(
    config: Qwen3_5TextConfig, tokens_per_second: float, every: float, reduced: float
) -> None:
    regular = tpot_limit(config, "regular", H200, 1.0, StepLoad())
    # The published limit leaves the recurrent states out, 1 % of what a step moves.
    assert 1 / regular == pytest.approx(tokens_per_second, rel=0.015)
    assert regular / tpot_limit(config, "pipo", H200, 2.0, StepLoad()) == pytest.approx(every, rel=0.01)
    assert regular / tpot_limit(config, "pipo", H200, 2.0, StepLoad(draft_vocab=32768)) == pytest.approx(
        reduced, rel=0.01
    )


def test_a_draft_that_is_rejected_is_not_projected_at_batch_one() -> None:
    assert step_bytes(B4, "pipo", StepLoad(acceptance=0.0)) + 2 * model_sizes(B4).head == step_bytes(
        B4, "pipo", StepLoad()
    )
    larger = {a: step_bytes(B4, "pipo", StepLoad(acceptance=a, batch=2)) for a in (0.1, 1.0)}
    assert larger[0.1] == larger[1.0]


@pytest.mark.parametrize(("tokens", "ratio"), [(2048, 1.99), (8192, 2.04), (32768, 2.23), (131072, 2.72)])
def test_half_the_positions_are_more_than_twice_as_fast_where_attention_counts(tokens: int, ratio: float) -> None:
    assert prefill_flops(B4, "regular", tokens) / prefill_flops(B4, "pipo", tokens) == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize(("batch", "context", "ratio"), [(16, 32768, 2.55), (64, 32768, 3.03), (64, 131072, 3.39)])
def test_the_ceiling_rises_where_keys_and_values_dominate(batch: int, context: int, ratio: float) -> None:
    at = StepLoad(context=context, batch=batch)
    assert 2 * step_bytes(B4, "regular", at) / step_bytes(B4, "pipo", at) == pytest.approx(ratio, rel=0.01)


def test_keys_and_values_of_half_the_positions_and_one_more_layer() -> None:
    for config, share in ((B4, 9 / 16), (B08, 7 / 12)):
        found = model_sizes(config)
        assert (found.kv + found.kv_mtp) / 2 / found.kv == pytest.approx(share)


def test_a_pair_model_has_room_for_more_sequences_and_a_verifier_that_rolls_back_for_fewer() -> None:
    long = {name: kept_bytes(B4, name, 1 << 20) for name in METHODS}
    assert long["regular"] / long["pipo"] == pytest.approx(16 / 9, rel=0.01)
    assert long["eagle"] / long["regular"] == pytest.approx(9 / 8, rel=0.01)
    short = kept_bytes(B4, "eagle", 2048, state_copies=3) - kept_bytes(B4, "eagle", 2048)
    assert short == 3 * model_sizes(B4).states


@pytest.mark.parametrize(
    ("context", "regular", "drafting", "copies", "pipo"),
    [
        (2048, 651, 606, [430, 272], 860),
        (8192, 241, 218, [190, 151], 380),
        (32768, 68, 61, [58, 54], 117),
        (131072, 17, 15, [15, 15], 31),
    ],
)
def test_what_80_gib_hold_of_the_4b(context: int, regular: int, drafting: int, copies: list[int], pipo: int) -> None:
    def fit(method: MethodName, state_copies: int = 0) -> int:
        left = 80 * 2**30 - resident_bytes(B4, method)
        return int(left // kept_bytes(B4, method, context, state_copies=state_copies))

    assert (fit("regular"), fit("mtp"), fit("eagle"), fit("pipo")) == (regular, drafting, drafting, pipo)
    assert [fit("eagle", state_copies=drafts) for drafts in (1, 3)] == copies


@pytest.mark.parametrize(
    "limits",
    [
        (32, 8192, 2.24, 2.24),
        (64, 8192, 2.45, 2.30),
        (16, 32768, 2.55, 2.20),
        (64, 32768, 3.03, 2.27),
        (256, 2048, 2.23, 1.71),
    ],
)
def test_speed_ups_of_many_users_on_an_h200(limits: tuple[int, int, float, float]) -> None:
    """Of pairs with every draft kept, and of eagle with 3 drafts at the published acceptance."""
    batch, context, pipo, eagle = limits
    regular = step_limit(B4, "regular", H200, StepLoad(context=context, batch=batch))
    assert 2 * regular / step_limit(B4, "pipo", H200, StepLoad(context=context, batch=batch)) == pytest.approx(
        pipo, rel=0.01
    )
    chain = StepLoad(context=context, batch=batch, drafts=3, acceptance=0.697)
    assert (1 + 3 * 0.697) * regular / step_limit(B4, "eagle", H200, chain) == pytest.approx(eagle, rel=0.01)


def test_products_with_weights_and_reading_caches_follow_one_another() -> None:
    load = StepLoad(context=8192, batch=64)
    products, caches = step_parts(B4, "regular", load)
    assert products.bytes + caches.bytes == step_bytes(B4, "regular", load)
    slow = Device("little arithmetic", 1e12, 1e13)  # of the products it is the limit, of the caches the bandwidth
    assert products.bytes / 1e12 < products.operations / 1e13
    assert caches.bytes / 1e12 > caches.operations / 1e13
    total = products.operations / 1e13 + caches.bytes / 1e12
    assert step_limit(B4, "regular", slow, load) == pytest.approx(total)
    one = StepLoad(context=8192)
    assert step_limit(B4, "regular", slow, one) == pytest.approx(step_bytes(B4, "regular", one) / 1e12)


@pytest.mark.parametrize("config", [B4, B9])  # its head is tied, its head is not
def test_int8_halves_the_weights_that_a_step_reads_and_no_keys(config: Qwen3_5TextConfig) -> None:
    load = StepLoad(context=4096, batch=2)
    for method in METHODS:
        (weights, caches), (half, same) = (step_parts(config, method, load, widths=widths) for widths in (BF16, INT8))
        assert (2 * half.bytes, half.operations, same) == (weights.bytes, weights.operations, caches)
        assert kept_bytes(config, method, 4096, widths=INT8) == kept_bytes(config, method, 4096)
        # The embeddings stay in bf16, and a head that was tied to them is a matrix of its own.
        head = model_sizes(config).head
        matrices = resident_bytes(config, method) // 2 - (0 if config.tie_word_embeddings else head)
        assert resident_bytes(config, method, widths=INT8) == matrices + 2 * head


@pytest.mark.parametrize("method", list(METHODS))
def test_what_a_sequence_keeps_is_what_its_caches_take(reference: Qwen3_5ForCausalPIPO, method: MethodName) -> None:
    prompts = [[(7 * place + first) % 300 + 3 for place in range(64)] for first in range(3)]
    settings = PrefillSettings([SamplingParams()] * 3, reserved_positions=0)
    opened = open_method(method, reference, 0)
    read = opened.open_reader(prompts, settings).read()
    taken = read.open_cache().nbytes + (read.open_mtp_cache().nbytes if opened.has_mtp_cache else 0)
    assert taken == 3 * kept_bytes(reference.config, method, 64, widths=FP32)


@pytest.mark.parametrize("method", list(METHODS))
def test_weights_in_memory_are_those_of_the_parts(method: MethodName) -> None:
    with torch.device("meta"):
        model = Qwen3_5ForCausalPIPO(B9)
    unused = [part for part in ("mtp", "compressor", "confidence_head") if part not in METHODS[method].needs]
    left_out = sum(parameter.numel() for part in unused for parameter in getattr(model, part).parameters())
    assert resident_bytes(B9, method) == 2 * (sum(one.numel() for one in model.parameters()) - left_out)


@pytest.mark.parametrize("method", list(METHODS))
def test_operations_of_a_step_are_those_that_pytorch_counts(
    reference: Qwen3_5ForCausalPIPO, method: MethodName
) -> None:
    """PyTorch counts attention in blocks alone, and also the recurrences' products, a few percent here."""
    prompts = [[(7 * place + first) % 300 + 3 for place in range(600)] for first in range(2)]
    share = 1.0 if "acceptance" in METHODS[method].options else None
    opened = replace(open_method(method, reference, 0, acceptance=share), block=4)
    state, _ = opened.prefill(prompts, PrefillSettings([SamplingParams()] * 2, reserved_positions=8))
    load = StepLoad(context=600, batch=2)
    with FlopCounterMode(display=False) as counter:
        opened.step(state)
    operations = sum(part.operations for part in step_parts(reference.config, method, load))
    assert counter.get_total_flops() == pytest.approx(operations, rel=0.1)


@pytest.mark.parametrize(
    ("acceptance", "draft_vocab", "ratio"), [(1.0, None, 1.45), (1.0, 32768, 1.85), (0.335, None, 1.16)]
)
def test_ceilings_of_the_smallest_shape(acceptance: float, draft_vocab: int | None, ratio: float) -> None:
    pipo = step_bytes(B08, "pipo", StepLoad(acceptance=acceptance, draft_vocab=draft_vocab))
    assert step_bytes(B08, "regular", StepLoad()) * (1 + acceptance) / pipo == pytest.approx(ratio, rel=0.01)


def test_devices_are_known_by_the_names_that_pytorch_gives_them() -> None:
    assert known_device("NVIDIA H100 80GB HBM3") == DEVICES["H100"]
    assert known_device("NVIDIA A100-SXM4-80GB") == DEVICES["A100-SXM4-80GB"]
    assert known_device("NVIDIA H20") == DEVICES["H20"]
    assert known_device("NVIDIA L4") == DEVICES["L4"]
    for other in (
        "NVIDIA L40",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA GH200 480GB",
        "NVIDIA GeForce RTX 4090 D",
    ):
        assert known_device(other) is None
    assert known_device("A card of next year") is None
