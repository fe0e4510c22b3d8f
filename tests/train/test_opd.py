"""`run_distill` as its users meet it: a process that distils, and what is refused before it starts."""

import json
import shutil
from pathlib import Path

import pytest

from pipo_core.errors import CheckpointError, MissingInputError, UsageError
from pipo_core.files import read_jsonl
from pipo_core.train.opd import run_distill
from pipo_core.train.plan import plan
from tests.tiny import write_rows
from tests.train.trainings import (
    Listener,
    distill_recipe,
    weights,
)


def test_a_process_distils_and_a_second_call_has_nothing_to_do(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    settings = distill_recipe(student, teacher, rows, max_steps=1, offload=True)
    listener = Listener()
    summary = run_distill(settings, tmp_path, reporter=listener, made_by="test")
    assert (summary["steps"], summary["artifact"], summary["rows"]) == (1, "model", 40)
    assert summary["tokens_per_slot"] >= 1
    assert summary["calibration"]["drafts"] > 0
    assert summary["rollouts_finished"] < 0.9, "a random student seldom ends"
    assert any("answers ended within rollout.slots=6" in line for line in listener.said)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1]
    assert run_distill(settings, tmp_path, made_by="test") == summary


def test_processes_can_be_traded_for_accumulation(student: Path, teacher: Path, rows: Path, tmp_path: Path) -> None:
    """Two processes learn what one learns in two micro-batches: from the same rollouts, with the mean gradient."""
    made = []
    for name, batch, processes in (("deep", {"accumulation": 2}, 1), ("wide", {}, 2)):
        launch = {"threads": 1, "processes": processes}
        settings = distill_recipe(
            student, teacher, rows, batch=batch, launch=launch, max_steps=2, save={"every_steps": 2}
        )
        (tmp_path / name).mkdir()
        run_distill(settings, tmp_path / name, made_by="test")
        made.append(weights(tmp_path / name / "model"))
    before = weights(student)
    for name, one in made[0].items():
        assert (one - made[1][name]).abs().max() < 2e-6, name
    assert max((made[0][name] - before[name]).abs().max().item() for name in before) > 1e-4


def test_questions_that_are_too_long_are_reported_with_the_key_of_a_distillation(
    student: Path, teacher: Path, tmp_path: Path
) -> None:
    file = tmp_path / "train.jsonl"
    asked = [[{"role": "user", "content": text}] for text in ("1+2", "3+4", "1" * 80)]
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in asked))
    listener = Listener()
    settings = distill_recipe(student, teacher, file, max_steps=1, batch={"per_device": 2})
    assert run_distill(settings, tmp_path / "out", reporter=listener, made_by="test")["dropped_rows"] == 1
    assert any("1 examples are longer than data.max_prompt" in line for line in listener.said)


def test_models_that_do_not_fit_are_refused_before_anything_runs(
    student: Path, teacher: Path, rows: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(teacher, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"!":0', '"☃":0').replace('"!": 0', '"☃": 0'))
    assert (other / "tokenizer.json").read_text() != text
    with pytest.raises(CheckpointError, match="token 0, '!', is absent there"):
        run_distill(distill_recipe(student, other, rows), tmp_path, made_by="test")
    with pytest.raises(CheckpointError, match="not a pair model"):
        run_distill(distill_recipe(teacher, teacher, rows), tmp_path, made_by="test")
    with pytest.raises(CheckpointError, match="is a pair model"):
        run_distill(distill_recipe(student, student, rows), tmp_path, made_by="test")
    with pytest.raises(UsageError, match=r"reads up to 512 tokens, and .* makes 664"):
        run_distill(distill_recipe(student, teacher, rows, rollout={"slots": 300}), tmp_path, made_by="test")
    assert not (tmp_path / "job.json").exists()


def test_rows_without_a_question_are_refused_by_their_line(student: Path, teacher: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 2)
    rows.write_text(rows.read_text() + '{"messages": [{"role": "assistant", "content": "4"}]}\n')
    with pytest.raises(MissingInputError, match=r"train.jsonl:3: no user turn"):
        run_distill(distill_recipe(student, teacher, rows), tmp_path, made_by="test")
    question = {"role": "user", "content": "1+1"}
    rows.write_text(json.dumps({"messages": [question]}) + "\n")  # an answer is not needed
    found = plan(distill_recipe(student, teacher, rows), tmp_path)
    assert (found["rows"], found["longest_row"]) == (1, 76)
