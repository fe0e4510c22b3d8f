"""The memory estimate against what is really counted and allocated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3_5TextConfig

from pipo_core.data.augment import augment
from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.checkpoint import random_weights
from pipo_core.model.shapes import shape_config
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import find_recipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.sizing.memory import count_weights, estimate_memory, estimate_of, max_positions, teacher_bytes
from pipo_core.train.trainable import modules_in_full
from tests.tiny import make_model, recipe
from tests.train.trainings import distill_recipe

CHUNK = 32


def config() -> Qwen3_5TextConfig:
    """Layers as the published ones are, heads as wide, everything else small."""
    return Qwen3_5TextConfig(
        vocab_size=4000,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
    )


def settings(method: str, tokens: int, **changes: object) -> TrainRecipe:
    tuning = {"method": method, "rank": 8, "dropout": 0.05} if method == "lora" else {"method": method}
    return recipe(
        Path("model"),
        Path("rows.jsonl"),
        tuning=tuning,
        pad_augmentation=[],
        data={"train": "rows.jsonl", "max_length": tokens},
        loss={"chunk": CHUNK},
        batch={"per_device": 1},
        **changes,
    )


def trainable(wanted: TrainRecipe) -> Qwen3_5ForCausalPIPO | PeftModel:
    """Return the model as ms-swift prepares it."""
    model = random_weights(config())
    model.train()
    if wanted.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if wanted.tuning.method == "full":
        return model
    lora = LoraConfig(
        r=wanted.tuning.rank,
        lora_dropout=wanted.tuning.dropout,
        target_modules=list(wanted.tuning.targets),
        modules_to_save=modules_in_full(wanted),
    )
    return get_peft_model(model, lora)


def allocated(wanted: TrainRecipe) -> int:
    """Return the peak of the bytes that forward and backward over the longest row allocate and free again."""
    model = trainable(wanted)
    ids = torch.randint(0, 4000, (1, wanted.data.max_length), generator=torch.Generator().manual_seed(0))
    weights = LossWeights(chunk=CHUNK)

    def work() -> None:
        model(input_ids=ids, labels=ids, objective=wanted.objective, loss_weights=weights).loss.backward()

    work()  # gradients are there from now on
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    results = watched.profiler.kineto_results
    changes = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    return int(max(np.cumsum([change for _, change in sorted(changes, key=lambda change: change[0])])))


@pytest.mark.parametrize(
    ("method", "objective", "checkpointing"),
    [("full", "pipo", True), ("lora", "pipo", True), ("full", "pipo", False), ("lora", "regular", True)],
)
def test_activations_are_those_that_are_allocated(method: str, objective: str, checkpointing: bool) -> None:
    for tokens in (256, 512):
        wanted = settings(method, tokens, objective=objective, gradient_checkpointing=checkpointing)
        estimate = estimate_memory(wanted, config(), fast_kernels=False)
        assert 0.95 < (estimate.activations + estimate.head) / allocated(wanted) < 1.25


@pytest.mark.parametrize("objective", ["pipo", "regular"])
def test_what_trains_is_counted_as_peft_counts_it(objective: str) -> None:
    wanted = settings("lora", 64, objective=objective)
    model = trainable(wanted)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    own = sum(weight.numel() for weight in random_weights(config(), device="meta").parameters())
    assert count_weights(wanted, config()) == (own, trained)


def test_a_gate_that_trains_alone_is_counted_alone() -> None:
    model = random_weights(config(), device="meta")
    own, gate = (sum(weight.numel() for weight in part.parameters()) for part in (model, model.confidence_head))
    assert count_weights(settings("gate", 64), config()) == (own, gate)


@pytest.mark.parametrize(
    "phase",
    [
        {"kind": "split", "rho_max": 0.25},
        {"kind": "segment", "rho_max": 0.6},
        {"kind": "segment", "rho_max": 0.1, "all_pads": 0.2},
    ],
)
def test_no_row_has_more_slots_than_max_positions(phase: dict[str, object]) -> None:
    wanted = settings("full", 400, objective="pipo").model_copy(update={"pad_augmentation": []})
    wanted = TrainRecipe.model_validate({**wanted.model_dump(), "pad_augmentation": [phase]})
    bound = max_positions(wanted)
    rng = np.random.default_rng(0)
    slots = []
    for _ in range(300):
        ids = rng.integers(0, 300, 400)
        labels = np.where(np.arange(400) < rng.integers(1, 20), -100, ids)
        row = augment(ids, labels, phase=wanted.pad_augmentation[0], seed=0, epoch=0, pad_id=300)
        slots.append(row.pads.size / 2)
    spread = 4 * 400**0.5 / 2 if phase["kind"] == "segment" else 2  # cutting is random beyond ρ
    assert max(slots) <= bound + spread
    assert max(slots) > 0.93 * bound


def test_zero_splits_optimizer_gradients_and_weights() -> None:
    shipped = load_recipe(find_recipe("sft"))
    assert isinstance(shipped, TrainRecipe)
    full = shipped.model_dump() | {"tuning": {"method": "full"}}
    config = shape_config("qwen3.5-4b")
    alone = TrainRecipe.model_validate({**full, "launch": {"processes": 8}})
    zero2 = TrainRecipe.model_validate({**full, "launch": {"processes": 8, "deepspeed": "zero2"}})
    zero3 = TrainRecipe.model_validate({**full, "launch": {"processes": 8, "deepspeed": "zero3"}})
    one, two, three = (estimate_memory(each, config, fast_kernels=True) for each in (alone, zero2, zero3))
    assert two.optimizer == 12 * 4_378_795_008 // 8
    assert one.optimizer == 8 * 4_378_795_008
    assert (one.weights, two.weights, three.weights) == tuple(4_378_795_008 * each // 8 for each in (48, 16, 2))
    assert one.total > two.total > three.total
    assert one.activations == three.activations


@pytest.mark.parametrize("name", ["sft", "single_gpu/sft"])
def test_shipped_recipes_fit_an_80_gb_gpu(name: str) -> None:
    shipped = load_recipe(find_recipe(name))
    assert isinstance(shipped, TrainRecipe)
    for fast in (True, False):
        assert estimate_memory(shipped, shape_config("qwen3.5-4b"), fast_kernels=fast).total < 0.8 * 80e9


def test_a_teachers_weights_count_where_they_are(tmp_path: Path) -> None:
    model = load_checkpoint(make_model(tmp_path / "tiny-teacher"))
    paths = (tmp_path / "student", tmp_path / "teacher", tmp_path / "rows")
    near = distill_recipe(*paths)
    everything = 4 * sum(weight.numel() for weight in model.text_model.parameters())
    lm_head = 4 * model.lm_head.weight.numel()
    assert teacher_bytes(near, model.config) == (everything, 0), "its LM head is its embedding"
    offloaded = distill_recipe(*paths, offload=True)
    assert teacher_bytes(offloaded, model.config) == (everything, lm_head)
    away = distill_recipe(*paths, teacher_device="cpu")
    assert teacher_bytes(away, model.config) == (0, lm_head)
    totals = [
        estimate_memory(one, model.config, fast_kernels=False, teacher=model.config).total
        for one in (near, offloaded, away)
    ]
    assert totals[0] > totals[1] == totals[2]


def test_positions_are_those_of_the_longest_row() -> None:
    base, rows = Path("base"), Path("rows")
    assert max_positions(recipe(base, rows)) == 256, "a tenth of the rows have a PAD in every slot"
    assert max_positions(distill_recipe(base, base, rows)) == 64 // 2 + 6


def test_published_sizes_are_known_and_other_names_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = recipe(Path("qwen3.5-0.8b"), Path("rows.jsonl"), precision="bf16", launch={"deepspeed": "zero2"})
    monkeypatch.setattr("pipo_core.sizing.memory.kernels", lambda: {"flash-linear-attention": False})
    slow = estimate_of(wanted)
    assert slow is not None
    assert slow.weights > 2 * 752_393_024
    monkeypatch.setattr("pipo_core.sizing.memory.kernels", lambda: {"flash-linear-attention": True})
    fast = estimate_of(wanted)
    assert fast is not None
    assert fast.activations < slow.activations
    assert estimate_of(recipe(Path("elsewhere/model"), Path("rows.jsonl"))) is None
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_5_text", "hidden_size": -1}')
    assert estimate_of(recipe(tmp_path, Path("rows.jsonl"))) is None, "no such model can be built"
