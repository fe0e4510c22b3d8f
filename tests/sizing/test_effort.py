"""Time by operations and bytes on disk, against sums that are written out here."""

import json

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.model.shapes import shape_config
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import find_recipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.sizing.effort import PEAK_FLOPS, UTILISATION, distillation_days, training_days, training_disk

ROWS, TOKENS = 95_969, 2_390_000_000


def recipe(*changes: str) -> TrainRecipe:
    loaded = load_recipe(find_recipe("single_gpu/sft.yaml"), changes)
    assert isinstance(loaded, TrainRecipe)
    return loaded


def test_the_papers_fine_tuning_takes_the_days_of_its_operations() -> None:
    """Qwen3.5-4B has 3.57 G weights below the head and 0.64 G in it; the pair model has the head twice and a block."""
    slots = TOKENS / 2 * 1.125  # a quarter of the pairs at most, an eighth on average, become two slots
    compressor, block, confidence = 6 * 2560**2, 0.13e9, 2 * 2560**2
    weights = 3.57e9 + 2 * 248_320 * 2560 + compressor + block + confidence
    attention = 4 * 16 * 256 * 8 * (slots / ROWS) / 2
    expected = 2 * slots * 3 * (2 * weights + attention) / (PEAK_FLOPS * UTILISATION) / 86_400
    found = training_days(recipe(), shape_config("qwen3.5-4b"), TOKENS, ROWS)
    assert found == pytest.approx(expected, rel=0.03)
    assert found == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        (["epochs=1"], 0.5),
        (["gradient_checkpointing=false"], 2 / 3),
        (["tuning.method=full"], 4 / 3),
        (["tuning.method=gate"], 1 / 3),
        (["pad_augmentation=[]"], 1 / 1.125),
        (["pad_augmentation=[{kind: segment, rho_max: 0}]"], 1 / 1.125),
        # By hand: one slot a token in a fifth of the examples, in the others 1/(2 - ρ) at 0, 0.25 and 0.5 (Simpson).
        (
            ["pad_augmentation=[{kind: segment, rho_max: 0.5, all_pads: 0.2}]"],
            (0.8 * (1 / 2 + 4 / 1.75 + 1 / 1.5) / 6 + 0.2) / 0.5625,
        ),
        (
            ["pad_augmentation=[{kind: split, rho_max: 0.25, until: 0.5}, {kind: segment, rho_max: 0, all_pads: 1}]"],
            (0.5 * 0.5625 + 0.5) / 0.5625,
        ),
        (["epochs=null", f"max_steps={ROWS // 128}"], 0.5),
    ],
)
def test_days_go_with_the_passes_and_the_slots(changes: list[str], ratio: float) -> None:
    config = shape_config("qwen3.5-4b")
    whole = training_days(recipe(), config, TOKENS, ROWS)
    # Attention, a small part here, goes with the square of the slots.
    assert training_days(recipe(*changes), config, TOKENS, ROWS) / whole == pytest.approx(ratio, rel=0.04)


def test_a_distillation_takes_its_answers_its_teacher_and_its_training() -> None:
    """Written out for a step of 8 answers of 1,000 slots, 4 at a time, 4B from 9B, weights trained by adapters."""
    words = ["rollout.slots=1000", "rollout.batch=4", "batch.per_device=8", "batch.accumulation=1", "max_steps=10"]
    loaded = load_recipe(find_recipe("single_gpu/opd.yaml"), [*words, "epochs=null", "gradient_checkpointing=false"])
    assert isinstance(loaded, DistillRecipe)
    student, teacher = shape_config("qwen3.5-4b"), shape_config("qwen3.5-9b")
    head, compressor, block, confidence = 248_320 * 2560, 6 * 2560**2, 0.13e9, 2 * 2560**2
    weights = 3.57e9 + 2 * head + compressor + block + confidence
    caches = 4 * 9 * 2 * 4 * 256 * 2 * 500  # 4 sequences, 9 layers, keys and values of 4 heads, bf16, 500 positions
    states = 4 * 2 * 24 * 32 * 128 * 128 * 4 * 1.01  # read and written, fp32, with the convolutions' own
    writing = 2 * 1000 * (2 * weights + caches + states) / 3.35e12
    reading = 2000 * 2 * 8.95e9 / PEAK_FLOPS
    learning = 1000 * 2 * 2 * weights / PEAK_FLOPS  # forward, and back through the activations
    expected = 10 * (writing + 8 * (reading + learning)) / UTILISATION / 86_400
    assert distillation_days(loaded, student, teacher, 0) == pytest.approx(expected, rel=0.06)
    by_epochs = load_recipe(find_recipe("single_gpu/opd.yaml"), [*words[:4], "max_steps=null", "epochs=2"])
    assert isinstance(by_epochs, DistillRecipe)
    twice = by_epochs.model_copy(update={"gradient_checkpointing": False})
    assert distillation_days(twice, student, teacher, 40) == pytest.approx(expected, rel=0.06)


def test_the_uncompressed_model_takes_nearly_twice_as_long() -> None:
    config = shape_config("qwen3.5-4b")
    pair, regular = (
        training_days(recipe(f"objective={objective}", "pad_augmentation=[]"), config, TOKENS, ROWS)
        for objective in ("pipo", "regular")
    )
    assert 1.5 < regular / pair < 2


def test_disk_holds_examples_checkpoints_and_models() -> None:
    disk = training_disk(recipe(), shape_config("qwen3.5-4b"), TOKENS)
    assert disk.examples == 5 * TOKENS
    assert 8e9 < disk.models < 11e9  # the merged model in bf16, and the adapter
    assert disk.total == disk.examples + disk.checkpoints + disk.models
    full = training_disk(recipe("tuning.method=full"), shape_config("qwen3.5-4b"), TOKENS)
    assert full.checkpoints > 5 * disk.checkpoints


def test_the_plan_of_the_paper_lists_all_that_is_missing_with_time_and_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    for name in ("paper", "single_gpu/paper"):
        result = CliRunner().invoke(app, ["run", name, "--dry-run", "--json"])
        assert result.exit_code == 3, result.output
        plan = json.loads(result.stdout)
        assert "qwen3.5-9b" in plan["missing"][0]["message"]
        assert plan["missing"][0]["hint"].startswith("pipo download qwen3.5-4b pipo-sft-data")
        takes = {stage["stage"]: stage["takes"] for stage in plan["stages"]}
        assert takes["sft"]["time"].startswith("about 2.6 GPU-days")
        assert "teacher" in takes["opd"]["memory a process"]
        assert "GB" in takes["opd"]["disk"]
        assert takes["eval"] == {}


def test_the_plan_of_stage_2_has_its_memory_before_stage_1_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    for name in ("opd", "single_gpu/opd"):
        result = CliRunner().invoke(app, ["distill", name, "--dry-run", "--json"])
        assert result.exit_code == 3, result.output
        assert "teacher" in json.loads(result.stdout)["work"]["memory a process"]


def test_a_distillation_s_dry_run_says_how_long_it_takes_at_most() -> None:
    result = CliRunner().invoke(app, ["distill", "single_gpu/opd.yaml", "--dry-run", "--json"])
    assert "if every answer fills its 16,384 slots, about " in json.loads(result.stdout)["work"]["time"]
    result = CliRunner().invoke(app, ["distill", "single_gpu/opd.yaml", "--dry-run", "--json", "data.limit=335"])
    assert "about 0.0 GPU-days, 1 h on 1 GPU" in json.loads(result.stdout)["work"]["time"]
