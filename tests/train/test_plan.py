"""The plan of a training: rows, steps, tokens, and what is missing."""

from pathlib import Path
from typing import Any

import pytest

from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.plan import longest_row, plan
from pipo_core.train.worker.sft_examples import encode_examples
from tests.tiny import recipe, write_rows
from tests.train.trainings import (
    distill_recipe,
)


def make(rows: Path | str = "train.jsonl", **changes: object) -> TrainRecipe:
    return recipe(Path("model"), Path(rows), **changes)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_steps": None, "epochs": 2.0, "batch": {"per_device": 4}}, 6),  # 10 rows: 3 batches an epoch
        (
            {"max_steps": None, "epochs": 2.0, "batch": {"per_device": 2, "accumulation": 2}},
            6,
        ),  # 5 batches, 3 steps
        ({"max_steps": None, "epochs": 1.5, "batch": {"per_device": 5}}, 3),
        ({"max_steps": None, "epochs": 1.0, "batch": {"per_device": 1}, "launch": {"processes": 4}}, 2),
    ],
)
def test_the_plan_counts_rows_and_steps(tmp_path: Path, changes: dict[str, Any], steps: int) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 10)
    planned = plan(make(rows, **changes), tmp_path)
    assert planned["rows"] == 10
    assert planned["steps"] == steps
    assert plan(make(tmp_path / "absent.jsonl", **changes), tmp_path)["rows"] is None


def test_the_plan_counts_tokens_once_they_are_there(tmp_path: Path, base_model: Path) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 10)
    settings = recipe(base_model, rows, max_steps=None, epochs=1.0, batch={"per_device": 3})
    before = plan(settings, tmp_path)
    assert (before["tokens"], before["steps"]) == (None, 4)
    lengths = iter([300, *[20] * 9])
    encode_examples(
        rows,
        before["tokenized"],
        encode=lambda row: dict.fromkeys(("input_ids", "labels"), [1] * next(lengths)),
        max_length=settings.data.max_length,
        limit=None,
        progress=lambda done: None,
    )
    after = plan(settings, tmp_path)
    assert (after["tokens"].examples, after["tokens"].dropped, after["tokens"].tokens) == (9, 1, 180)
    assert after["steps"] == 3


def test_the_plan_says_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(Path("qwen3.5-0.8b"), Path("rows.jsonl"), precision="bf16", launch={"deepspeed": "zero2"})
    monkeypatch.setattr("pipo_core.train.plan.importlib.util.find_spec", lambda name: None)
    planned = plan(settings, tmp_path)
    assert planned["kernels"] == {"flash-linear-attention": False, "causal-conv1d": False}
    assert [lack.message.split()[0] for lack in planned["missing"]] == ["training", "launch.deepspeed"]
    monkeypatch.setattr("pipo_core.train.plan.importlib.util.find_spec", lambda name: object())
    planned = plan(settings, tmp_path)
    assert all(planned["kernels"].values())
    assert planned["missing"] == []


def test_the_longest_row_of_a_distillation_is_its_question_and_two_tokens_a_slot(
    student: Path, teacher: Path, rows: Path
) -> None:
    assert longest_row(distill_recipe(student, teacher, rows)) == 64 + 2 * 6
