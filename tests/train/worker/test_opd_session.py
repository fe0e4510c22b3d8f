"""Whole distillations of a few steps in this process."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipo_core.decode.pair import PairMethod
from pipo_core.errors import CheckpointError, PipoError
from pipo_core.files import read_json
from pipo_core.merge import run_merge
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.frequent_tokens import FrequentTokens, read_draft_vocab, write_draft_vocab
from pipo_core.model.outputs import PIPOOutput
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.sizing.vocabulary import check_draft_vocab
from pipo_core.train.worker.opd_teacher import Teacher
from tests.train.trainings import (
    LORA,
    differing,
    distill_recipe,
    train_here,
    weights,
)


@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
def test_resuming_equals_never_stopping_and_merges(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    settings = distill_recipe(student, teacher, rows, tuning=tuning, gradient_checkpointing=True, max_steps=3)
    events = train_here(settings, tmp_path / "whole")
    logs = [event for event in events if event["event"] == "log"]
    assert [event["step"] for event in logs] == [1, 2, 3]
    assert logs[0]["loss"] == pytest.approx(
        logs[0]["backbone_loss"] + logs[0]["mtp_loss"] + logs[0]["confidence_loss"], rel=1e-4
    )
    for log in logs:
        assert log["backbone_loss"] > 0.01
        assert log["mtp_loss"] > 0.01
        assert 0 < log["confidence_target_mean"] < 1
        assert 1 <= log["tokens_per_slot"] <= 2
        assert log["rollout_tokens"] <= 12
        assert log["rollout_share"] + log["teacher_share"] + log["student_share"] == pytest.approx(1, abs=1e-3)

    artifact = "model" if tuning["method"] == "full" else "adapter"
    cut = tmp_path / "cut"
    train_here(settings, cut)
    shutil.rmtree(cut / artifact)
    shutil.rmtree(cut / "checkpoints" / "checkpoint-3")
    (cut / "checkpoints" / "checkpoint-2" / "complete.json").unlink()
    # Other rows at once, and nothing else of the run, may change.
    again = train_here(settings.model_copy(update={"rollout": settings.rollout.model_copy(update={"batch": 3})}), cut)
    assert next(event for event in again if event["event"] == "begin")["step"] == 1
    assert differing(weights(tmp_path / "whole" / artifact), weights(cut / artifact)) == []

    merged = tmp_path / "merged"
    merged.mkdir()
    run_merge(MergeRecipe(source=str(tmp_path / "whole")), merged)
    assert read_json(merged / "model" / "config.json")["architectures"] == ["Qwen3_5ForCausalPIPO"]
    assert differing(weights(merged / "model"), weights(student)), "it learned"


def test_a_draft_vocabulary_comes_from_the_students_token_counts(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"has no draft_vocab\.json"):
        train_here(distill_recipe(student, teacher, rows, draft_vocab=20), tmp_path / "without")
    with pytest.raises(CheckpointError, match=r"has no draft_vocab\.json"):
        check_draft_vocab(distill_recipe(student, teacher, rows, draft_vocab=20))
    counted = shutil.copytree(student, tmp_path / "student")
    write_draft_vocab(counted, FrequentTokens(list(range(120)), list(range(120, 0, -1)), gate=9))
    targets = []
    for size in (None, 20):
        settings = distill_recipe(counted, teacher, rows, draft_vocab=size, max_steps=1)
        logs = [event for event in train_here(settings, tmp_path / str(size)) if event["event"] == "log"]
        targets.append(logs[0]["confidence_target_mean"])
        recorded = read_draft_vocab(tmp_path / str(size) / "model")
        assert recorded == FrequentTokens(list(range(120)), list(range(120, 0, -1)), gate=size)
    assert targets[1] < targets[0]


def test_a_nan_loss_ends_the_training_and_keeps_the_last_checkpoint(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Teacher.read
    calls = []

    def failing(self: Teacher, input_ids: torch.Tensor, pads: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        hidden = read(self, input_ids, pads)
        return hidden * float("nan") if len(calls) > 2 else hidden

    monkeypatch.setattr(Teacher, "read", failing)
    with pytest.raises(PipoError, match=r"loss is nan at step 2, on lines \d+, \d+ of .*train.jsonl"):
        train_here(distill_recipe(student, teacher, rows), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*/complete.json")] == ["complete.json"]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "checkpoints" / "checkpoint-1").values())


def test_a_nan_gradient_never_reaches_the_weights(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Qwen3_5ForCausalPIPO.forward

    def poisoned(self: Qwen3_5ForCausalPIPO, *args: Any, **kwargs: Any) -> PIPOOutput:
        output = forward(self, *args, **kwargs)
        assert output.loss is not None
        output.loss.register_hook(lambda gradient: gradient * float("nan"))
        return output

    monkeypatch.setattr(Qwen3_5ForCausalPIPO, "forward", poisoned)
    with pytest.raises(PipoError, match="gradient is NaN or infinite at step 1"):
        train_here(distill_recipe(student, teacher, rows), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_an_answer_that_fails_is_reported_by_its_line(
    student: Path, teacher: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: PairMethod, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(PairMethod, "prefill", broken)
    with pytest.raises(PipoError, match=r"question of line \d+: .*no such kernel"):
        train_here(distill_recipe(student, teacher, rows), tmp_path)
