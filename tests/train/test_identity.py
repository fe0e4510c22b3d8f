"""When is it the same training? The fingerprint under which a training goes on."""

import json
from pathlib import Path

import pytest

from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.identity import training_fingerprint

# The recipes below, by version 0.1.0 of pipo. Checkpoints of today carry such fingerprints: where these change,
# interrupted trainings do not go on.
SFT, OPD = "26c0674d106edc8b", "8a6ec9879a37218a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models and data whose contents never change."""
    for name in ("student", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
        (tmp_path / name / "tokenizer.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"1234")
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "validation.jsonl").write_text('{"messages": []}\n\n')
    return tmp_path


def settings(folder: Path) -> dict[str, object]:
    return {
        "model": str(folder / "student"),
        "max_steps": 5,
        "seed": 3,
        "optimizer": {"learning_rate": 1e-3},
        "launch": {"processes": 2},
    }


def sft(folder: Path, **changes: object) -> TrainRecipe:
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl"), "max_length": 64}
    return TrainRecipe.model_validate({**settings(folder), "data": {**data, "cache": "x"}, **changes})


def opd(folder: Path, **changes: object) -> DistillRecipe:
    data = {"train": str(folder / "train.jsonl"), "max_prompt": 64}
    own = {"teacher": str(folder / "teacher"), "data": data, "rollout": {"slots": 9, "batch": 3}}
    return DistillRecipe.model_validate({**settings(folder), **own, **changes})


def test_trainings_of_earlier_versions_go_on(folder: Path) -> None:
    assert training_fingerprint(sft(folder)) == SFT
    assert training_fingerprint(opd(folder)) == OPD


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"log_every_steps": 1},
        {"save": {"every_steps": 1}},
        {"launch": {"processes": 2, "threads": 4}},
        {"data": {"cache": "elsewhere"}},
        {"teacher_device": "cpu"},
        {"offload": True},
        {"rollout": {"slots": 9, "batch": 4}},
    ],
    ids=str,
)
def test_what_changes_no_weight_makes_no_other_training(folder: Path, changes: dict[str, object]) -> None:
    for make, expected in ((sft, SFT), (opd, OPD)):
        plain: AnyTraining = make(folder)
        known = {key: value for key, value in changes.items() if key in type(plain).model_fields}
        if known.get("data"):
            if make is opd:
                continue
            known["data"] = {**plain.data.model_dump(), "cache": "elsewhere"}
        assert training_fingerprint(make(folder, **known)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"optimizer": {"learning_rate": 2e-3}},
        {"launch": {"processes": 1}},
        {"tuning": {"method": "full"}},
        {"batch": {"accumulation": 2}},
        {"rollout": {"slots": 10}},
        {"objective": "regular"},
    ],
    ids=str,
)
def test_settings_make_another_training(folder: Path, changes: dict[str, object]) -> None:
    for make, expected in ((sft, SFT), (opd, OPD)):
        known = {key: value for key, value in changes.items() if key in type(make(folder)).model_fields}
        if known:
            assert training_fingerprint(make(folder, **known)) != expected


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("train.jsonl", (sft, opd)),
        ("validation.jsonl", (sft,)),
        ("student/config.json", (sft, opd)),
        ("student/model.safetensors", (sft, opd)),
        ("teacher/tokenizer.json", (opd,)),
    ],
)
def test_data_and_models_count_by_content(folder: Path, file: str, kinds: tuple[object, ...]) -> None:
    (folder / file).write_text("other content")
    for make, expected in ((sft, SFT), (opd, OPD)):
        assert (training_fingerprint(make(folder)) != expected) is (make in kinds)
