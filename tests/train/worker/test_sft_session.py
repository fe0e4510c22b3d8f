"""Whole trainings of a few steps in this process: what they leave, and that interruptions leave no trace."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoTokenizer

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError, PipoError, UsageError
from pipo_core.files import read_json
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.frequent_tokens import read_draft_vocab
from pipo_core.model.outputs import PIPOOutput
from pipo_core.sizing.vocabulary import check_draft_vocab
from pipo_core.train.trainable import frozen_modules
from tests.tiny import recipe, write_even_rows, write_rows
from tests.train.trainings import (
    LORA,
    differing,
    train_here,
    weights,
)


def test_full_fine_tuning_moves_every_weight_and_leaves_a_checkpoint(
    base_model: Path, rows: Path, tmp_path: Path
) -> None:
    events = train_here(recipe(base_model, rows), tmp_path)
    kinds = [event["event"] for event in events]
    assert kinds.index("begin") < kinds.index("log") < kinds.index("save") < kinds.index("done")
    logs = [event for event in events if event["event"] == "log"]
    assert [event["step"] for event in logs] == [1, 2, 3, 4, 6], "a row ends with each checkpoint, too"
    for name in ("loss", "backbone_loss", "mtp_loss", "confidence_loss", "confidence_mean"):
        assert logs[-1][name] > 0
    for name in ("confidence_target_mean", "acceptance_0.5", "acceptance_0.95"):
        assert 0 <= logs[-1][name] <= 1
    assert logs[-1]["loss"] == pytest.approx(
        logs[-1]["backbone_loss"] + logs[-1]["mtp_loss"] + logs[-1]["confidence_loss"], rel=1e-4
    )
    assert logs[-1]["tokens_per_second"] > 0
    assert logs[-1]["loss"] < logs[0]["loss"]

    config = read_json(tmp_path / "model" / "config.json")
    assert config["architectures"] == ["Qwen3_5ForCausalPIPO"]
    assert config["pipo_base"] == "tiny-base"
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    before, after = load_checkpoint(base_model).state_dict(), load_checkpoint(tmp_path / "model").state_dict()
    # Embeddings of bytes that the rows lack have no gradient but weight decay; everything else learns.
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-6",
    ]


@pytest.mark.parametrize(
    ("tuning", "grouped"), [({"method": "full"}, True), (LORA, False)], ids=["full, by length", "lora"]
)
def test_resuming_equals_never_stopping(
    base_model: Path, rows: Path, tmp_path: Path, tuning: dict[str, Any], grouped: bool
) -> None:
    batch = {"per_device": 4, "group_by_length": grouped}
    save = {"every_steps": 5, "keep": 4}
    settings = recipe(base_model, rows, tuning=tuning, batch=batch, max_steps=13, save=save, seed=11)
    artifact = "model" if tuning["method"] == "full" else "adapter"
    never = train_here(settings, tmp_path / "whole")  # 10 steps an epoch: it resumes within one and crosses its end

    cut = tmp_path / "cut"
    train_here(settings, cut)
    shutil.rmtree(cut / artifact)
    shutil.rmtree(cut / "checkpoints" / "checkpoint-13")
    (cut / "checkpoints" / "checkpoint-10" / "complete.json").unlink()  # as if killed while writing it
    events = train_here(settings, cut)
    assert next(event for event in events if event["event"] == "begin")["step"] == 5
    assert differing(weights(tmp_path / "whole" / artifact), weights(cut / artifact)) == []
    # Its rows cover the steps that they say, for one ended with the checkpoint: as many drafts, the same figures.
    assert figures(events) == {step: row for step, row in figures(never).items() if step > 5}


@pytest.mark.parametrize("objective", ["pipo", "regular"])
def test_a_nan_loss_ends_the_training_and_keeps_the_last_checkpoint(
    base_model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Literal["pipo", "regular"]
) -> None:
    forward = Qwen3_5ForCausalPIPO.forward
    calls = []

    def failing(self: Qwen3_5ForCausalPIPO, *args: Any, **kwargs: Any) -> PIPOOutput:
        output = forward(self, *args, **kwargs)
        calls.append(1)
        if len(calls) > 3:
            assert output.loss is not None
            output.loss = output.loss * float("nan")
        return output

    monkeypatch.setattr(Qwen3_5ForCausalPIPO, "forward", failing)
    pads: dict[str, Any] = {"pad_augmentation": []} if objective == "regular" else {}
    settings = recipe(base_model, rows, objective=objective, max_steps=6, save={"every_steps": 2, "keep": 2}, **pads)
    with pytest.raises(PipoError, match=r"the loss is nan at step 4, on rows of .*jsonl"):
        train_here(settings, tmp_path)
    (kept,) = (tmp_path / "checkpoints").glob("checkpoint-*/complete.json")
    assert kept.parent.name == "checkpoint-2"
    assert not (tmp_path / "model").exists()


def figures(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the figures of each row of the log that do not depend on time, by step."""
    return {
        event["step"]: {name: value for name, value in event.items() if name != "tokens_per_second"}
        for event in events
        if event["event"] == "log"
    }


def test_a_finished_training_is_not_trained_further(base_model: Path, rows: Path, tmp_path: Path) -> None:
    settings = recipe(base_model, rows, max_steps=6)
    train_here(settings, tmp_path)
    first = weights(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    events = train_here(settings, tmp_path)  # as if killed between the last checkpoint and the artifact
    assert [event["event"] for event in events] == ["done"]
    assert differing(first, weights(tmp_path / "model")) == []


def test_a_draft_vocabulary_teaches_the_gate_alone_and_is_recorded(
    base_model: Path, rows: Path, tmp_path: Path
) -> None:
    # Clipping would scale all gradients by a norm that the gate's is part of.
    optimizer = {"learning_rate": 1e-3, "max_grad_norm": 1e6}
    made = []
    for size in (None, 12):
        out = tmp_path / str(size)
        settings = recipe(base_model, rows, max_steps=3, optimizer=optimizer, draft_vocab=size)
        logs = [event for event in train_here(settings, out) if event["event"] == "log"]
        made.append((logs[0]["confidence_target_mean"], weights(out / "model")))
        assert read_draft_vocab(out / "model").gate == size
    (full_target, full), (few_target, few) = made
    assert few_target < full_target
    assert differing(full, few)
    assert all(name.startswith("confidence_head.") for name in differing(full, few))


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_draft_vocabulary_that_the_model_cannot_have_ends_plan_and_training_alike(
    base_model: Path, rows: Path, tmp_path: Path, size: int
) -> None:
    settings = recipe(base_model, rows, draft_vocab=size)
    with pytest.raises(UsageError, match=f"a draft vocabulary of {size} (has no room|is larger)") as planned:
        check_draft_vocab(settings)
    with pytest.raises(UsageError) as trained:
        train_here(settings, tmp_path)
    assert str(trained.value) == str(planned.value)
    check_draft_vocab(recipe(base_model, rows, draft_vocab=12))
    check_draft_vocab(recipe(tmp_path / "absent", rows, draft_vocab=size))


def test_the_gate_can_train_alone(base_model: Path, rows: Path, tmp_path: Path) -> None:
    train_here(recipe(base_model, rows, max_steps=2), tmp_path / "pair")
    before = weights(tmp_path / "pair" / "model")
    settings = recipe(tmp_path / "pair" / "model", rows, max_steps=6, tuning={"method": "gate"}, draft_vocab=12)
    logs = [event for event in train_here(settings, tmp_path / "gate") if event["event"] == "log"]
    assert logs[-1]["confidence_loss"] < logs[0]["confidence_loss"]
    changed = differing(before, weights(tmp_path / "gate" / "model"))
    assert changed
    assert all(name.startswith("confidence_head.") for name in changed)


def test_checkpoints_of_other_settings_are_refused(base_model: Path, rows: Path, tmp_path: Path) -> None:
    train_here(recipe(base_model, rows, max_steps=3), tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        train_here(recipe(base_model, rows, max_steps=3), tmp_path, made_by="other")


@pytest.mark.parametrize("objective", ["pipo", "regular"])
@pytest.mark.parametrize("places", [(), (4, 6)], ids=["no label", "no second place"])
def test_batches_without_labels_give_gradients_of_zero_and_not_none(
    base_model: Path, objective: Literal["pipo", "regular"], places: tuple[int, ...]
) -> None:
    """Else processes that train together would wait for each other's gradients for ever."""
    model = load_checkpoint(base_model)
    for part in frozen_modules(recipe(base_model, base_model, objective=objective)):
        model.get_submodule(part).requires_grad_(False)
    ids = torch.randint(0, 256, (2, 10), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, list(places)] = ids[:, list(places)]
    output = model(input_ids=ids, labels=labels, objective=objective)
    output.loss.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in trained.values())
    if not places:
        assert output.loss == 0
        assert not any(gradient.any() for gradient in trained.values())
    elif objective == "pipo":
        assert output.mtp_loss == output.confidence_loss == 0
        still = {name.partition(".")[0] for name, gradient in trained.items() if not gradient.any()}
        assert still == {"mtp", "confidence_head"}


def test_accumulation_is_the_mean_over_the_whole_batch(base_model: Path, tmp_path: Path) -> None:
    rows = write_even_rows(tmp_path / "train.jsonl", 8)
    logs = []
    for name, batch in [("wide", {"per_device": 4}), ("deep", {"per_device": 2, "accumulation": 2})]:
        settings = recipe(base_model, rows, batch=batch, pad_augmentation=[], max_steps=2, log_every_steps=1)
        logs.append([e for e in train_here(settings, tmp_path / name) if e["event"] == "log"])
    for wide, deep in zip(*logs, strict=True):
        assert deep["loss"] == pytest.approx(wide["loss"], rel=1e-5)
        assert deep["grad_norm"] == pytest.approx(wide["grad_norm"], rel=1e-4)
    a, b = weights(tmp_path / "wide" / "model"), weights(tmp_path / "deep" / "model")
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 2e-5


def test_other_settings_tokenize_nothing_again(base_model: Path, rows: Path, tmp_path: Path) -> None:
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    encoded = []
    for rate, max_length in ((1e-3, 256), (1e-4, 256), (1e-4, 255)):
        settings = recipe(
            base_model,
            rows,
            data={**data, "max_length": max_length},
            optimizer={"learning_rate": rate},
            max_steps=1,
        )
        events = train_here(settings, tmp_path / f"{rate}-{max_length}")
        encoded.append(any(event["event"] == "encode" for event in events))
    assert encoded == [True, False, True]


def test_regular_objective_writes_a_base(base_model: Path, rows: Path, tmp_path: Path) -> None:
    events = train_here(recipe(base_model, rows, objective="regular"), tmp_path)
    last = [event for event in events if event["event"] == "log"][-1]
    assert last["loss"] == pytest.approx(last["backbone_loss"] + last["mtp_loss"], rel=1e-4)
    assert "confidence_loss" not in last
    written = weights(tmp_path / "model")
    assert read_json(tmp_path / "model" / "config.json")["architectures"] == ["Qwen3_5ForCausalLM"]
    assert not any(name.startswith(("compressor", "confidence_head")) for name in written)
    assert not differing({n: torch.ones(()) for n in written}, {n: torch.ones(()) for n in weights(base_model)})
    before = weights(base_model)
    assert not [name for name in written if torch.equal(written[name], before[name])]


@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
def test_modules_that_the_objective_does_not_run_stay_unchanged(
    base_model: Path, rows: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    train_here(recipe(base_model, rows, objective="regular", tuning=tuning, loss={"mtp": 0.0}), tmp_path)
    if tuning["method"] == "full":
        trained, before = weights(tmp_path / "model"), weights(base_model)
        assert {name for name in trained if torch.equal(trained[name], before[name])} == {
            name for name in trained if name.startswith("mtp.")
        }
    else:
        adapter = weights(tmp_path / "adapter")
        still = {name for name in adapter if "lora_B" in name and not adapter[name].any()}
        assert still == {name for name in adapter if "lora_B" in name and ".mtp." in name}


def test_gradient_checkpointing_changes_nothing(base_model: Path, rows: Path, tmp_path: Path) -> None:
    for name, on in [("off", False), ("on", True)]:
        train_here(recipe(base_model, rows, gradient_checkpointing=on, max_steps=2), tmp_path / name)
    a, b = weights(tmp_path / "off" / "model"), weights(tmp_path / "on" / "model")
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-6


def test_a_random_compressor_does_not_start_near_the_sum(base_model: Path, rows: Path, tmp_path: Path) -> None:
    """The paper's ablation: with the sum as its start, a compressor is near it after a step; without, it is not."""
    identity = torch.eye(32).repeat(1, 2)
    distances = []
    for start in ("sum", "random"):
        settings = recipe(base_model, rows, compressor={"type": "linear", "start": start}, max_steps=1)
        train_here(settings, tmp_path / start)
        distances.append((weights(tmp_path / start / "model")["compressor.linear.weight"] - identity).abs().max())
    assert distances[0] < 0.01
    assert distances[1] > 0.5


def test_long_rows_are_left_out_and_counted(base_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 10)
    long_row = {
        "messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "<think>\n" + "2" * 400}]
    }
    rows.write_text(json.dumps(long_row) + "\n" + rows.read_text())
    events = train_here(recipe(base_model, rows, max_steps=1), tmp_path / "out")
    begin = next(event for event in events if event["event"] == "begin")
    assert (begin["rows"], begin["dropped"]) == (10, 1)

    rows.write_text(json.dumps(long_row) + "\n")
    with pytest.raises(MissingInputError, match="longer than"):
        train_here(recipe(base_model, rows, max_steps=1), tmp_path / "other")


def test_validation_is_measured_without_augmentation(base_model: Path, rows: Path, tmp_path: Path) -> None:
    validation = write_rows(tmp_path / "validation.jsonl", 6, seed=9)
    data = {"train": str(rows), "validation": str(validation), "max_length": 256}
    settings = recipe(base_model, rows, data=data, save={"every_steps": 2}, max_steps=4)
    events = train_here(settings, tmp_path / "out")
    measured = [event for event in events if "eval_loss" in event]
    assert [event["step"] for event in measured] == [2, 4]
    assert measured[1]["eval_loss"] < measured[0]["eval_loss"]
    assert measured[1]["eval_mtp_loss"] > 0
