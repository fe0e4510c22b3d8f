"""What a recipe's names mean on this disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.files import write_json
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.pipeline.inputs import all_missing, find_inputs, missing_inputs, put_inputs, stage_references
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.schema import references


def train(model: str, train: str = "rows.jsonl") -> dict[str, Any]:
    return {"model": model, "data": {"train": train, "validation": None}}


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    write_json(path / "config.json", {})
    return path


def stage_folder(path: Path, state: str = "done") -> Path:
    path.mkdir(parents=True)
    write_json(path / "stage.json", {"state": state})
    return path


def model_of(value: str, stages: dict[str, Path] | None = None) -> Path:
    found = find_inputs("rollout", {"model": value, "problems": {"source": "tiny"}}, stages)
    assert [item.key for item in found] == ["model"]
    return found[0].path


def test_a_model_is_a_folder_or_the_model_folder_of_a_stage(tmp_path: Path) -> None:
    assert model_of(str(model_folder(tmp_path / "m"))) == tmp_path / "m"
    stage = stage_folder(tmp_path / "train")
    model_folder(stage / "model")
    assert model_of(str(stage)) == stage / "model"
    assert model_of("stage:t", {"t": stage}) == stage / "model"
    assert model_of("stage:t/model", {"t": stage}) == stage / "model"


def test_paths_may_be_relative_to_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert model_of("m") == tmp_path / "m"


@pytest.mark.parametrize("sub", ["", "adapter"])
def test_an_adapter_is_not_a_model_and_the_next_command_is_said(tmp_path: Path, sub: str) -> None:
    stage = stage_folder(tmp_path / "train")
    (stage / sub).mkdir(exist_ok=True)
    write_json(stage / sub / "adapter_config.json", {})
    with pytest.raises(MissingInputError, match="holds an adapter") as caught:
        model_of(str(stage))
    assert caught.value.hint == f"pipo merge {stage}"


def test_the_logs_of_a_training_are_no_part_of_what_is_merged(tmp_path: Path) -> None:
    model = model_folder(stage_folder(tmp_path / "train") / "model")
    (tmp_path / "train" / "worker.log").write_text("today")
    (found,) = find_inputs("merge", {"source": str(tmp_path / "train"), "base": None})
    assert found.path == model


def test_a_merge_takes_the_adapter_of_a_train_stage(tmp_path: Path) -> None:
    stage = stage_folder(tmp_path / "train")
    (stage / "adapter").mkdir()
    write_json(stage / "adapter" / "adapter_config.json", {})
    for value in (stage, stage / "adapter"):
        [found] = find_inputs("merge", {"source": str(value), "base": None})
        assert found.path == stage / "adapter"


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_an_unfinished_stage_is_not_an_input(tmp_path: Path, state: str) -> None:
    stage = stage_folder(tmp_path / "train", state)
    model_folder(stage / "model")
    with pytest.raises(MissingInputError, match=f"not finished.*{state}"):
        model_of(str(stage))


def test_a_record_that_is_no_object_is_said(tmp_path: Path) -> None:
    stage = stage_folder(tmp_path / "train")
    (stage / "stage.json").write_text("[]")
    with pytest.raises(MissingInputError, match="does not hold a JSON object"):
        model_of(str(stage))


@pytest.mark.parametrize("value", ["outputs/foo", "./foo", "../foo", "/foo/bar", "here/foo"])
def test_an_absent_path_is_not_taken_for_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(MissingInputError, match="does not exist") as caught:
        model_of(value)
    assert caught.value.hint is None


def test_rows_are_a_file_or_a_folder_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    for value in (tmp_path, tmp_path / "train.jsonl"):
        found = find_inputs("train", train(str(model_folder(tmp_path / f"m{len(str(value))}")), str(value)))
        assert found[1].path == tmp_path / "train.jsonl"
    with pytest.raises(MissingInputError, match="/dev/null is no regular file"):
        find_inputs("train", train(str(tmp_path / f"m{len(str(tmp_path))}"), "/dev/null"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("tiny-studnet", "did you mean 'tiny-student'"),
        ("no/such/folder", "neither a path here"),
        ("stage:biuld", "no earlier stage 'biuld' .did you mean 'build'"),
        ("stage:build/part", "made no 'part'"),
        ("stage:build", "holds no model"),
    ],
)
def test_what_is_not_there_is_said_with_its_key(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(MissingInputError, match=f"model: .*{words}"):
        model_of(value, {"build": stage_folder(tmp_path / "build")})


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a repository into an empty Hugging Face cache as a download leaves it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(kind: str, repo: str, *files: str) -> Path:
        folder = tmp_path / "hub" / f"{kind}--{repo.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("0" * 40)
        for name in files:
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_text("{}")
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        return snapshot

    return add


def test_hub_ids_are_taken_from_the_cache_only(hub_cache: Callable[..., Path]) -> None:
    with pytest.raises(MissingInputError, match="Hugging Face cache") as caught:
        model_of("Qwen/Qwen3.5-4B")
    assert caught.value.hint == "pipo download Qwen/Qwen3.5-4B"
    snapshot = hub_cache("models", "Qwen/Qwen3.5-4B", "config.json", "model.safetensors")
    assert model_of("Qwen/Qwen3.5-4B") == snapshot
    assert model_of("qwen3.5-4b") == snapshot


def test_half_a_download_is_not_a_model(hub_cache: Callable[..., Path]) -> None:
    hub_cache("models", "Qwen/Qwen3.5-9B", "config.json")
    with pytest.raises(MissingInputError) as caught:
        model_of("qwen3.5-9b")
    assert caught.value.hint == "pipo download qwen3.5-9b"


def test_data_of_the_catalog_is_one_file_of_its_repository(tmp_path: Path, hub_cache: Callable[..., Path]) -> None:
    snapshot = hub_cache("datasets", "AlbertTan/PIPO", "data/sft_all.jsonl")
    found = find_inputs("train", train(str(model_folder(tmp_path / "m")), "pipo-sft-data"))
    assert found[1].path == snapshot / "data" / "sft_all.jsonl"
    with pytest.raises(MissingInputError, match="pipo-opd-data"):
        find_inputs("train", train(str(tmp_path / "m"), "pipo-opd-data"))


def test_bundled_models_are_found_by_name_wherever_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "tiny-student")
    monkeypatch.setattr("pipo_core.pipeline.inputs.bundled_model", lambda name: Path("/bundled") / name)
    assert model_of("tiny-student") == Path("/bundled/tiny-student")


def test_every_reference_of_every_recipe_kind_is_resolved_here() -> None:
    arms = {"arms": [{"name": "a", "method": "regular", "ckpt": "x/y"}]}
    recipes = {
        "train": {"model": "x/y", "data": {"train": "x/y", "validation": "x/y"}},
        "distill": {"model": "x/y", "teacher": "x/y", "data": {"train": "x/y"}},
        "rollout": {"model": "x/y"},
        "build": {"rollouts": ["x/y"]},
        "merge": {"source": "x/y", "base": "x/y"},
        "eval": {**arms, "suite": "tiny"},
        "bench": arms,
        "calibrate": {"ckpt": "x/y", "regular": {"ckpt": "x/y"}, "rows": {"file": "x/y"}},
    }
    assert recipes.keys() == KINDS.keys() - {"pipeline"}
    for kind, data in recipes.items():
        marked = {".".join(map(str, loc)) for loc, _, _ in references(KINDS[kind], data)}
        staged = json.loads(json.dumps(data).replace("x/y", "stage:s"))
        assert marked <= {key for key, _ in stage_references(kind, staged)}


def test_stage_references_and_outside_inputs_divide_the_inputs(tmp_path: Path) -> None:
    settings = train(str(model_folder(tmp_path / "m")), "stage:build/train.jsonl")
    assert stage_references("train", settings) == [("data.train", "build")]
    assert missing_inputs("train", settings) == []
    settings = train("./nowhere", "stage:build/train.jsonl")
    assert [error.message.partition(":")[0] for error in missing_inputs("train", settings)] == ["model"]


def test_everything_that_is_missing_is_one_error_with_one_download() -> None:
    errors = [
        *missing_inputs(
            "distill", {"model": "qwen3.5-4b", "teacher": "qwen3.5-9b", "data": {"train": "pipo-opd-data"}}
        ),
        *missing_inputs("train", train("qwen3.5-4b", "./rows.jsonl")),
    ]
    error = all_missing(errors)
    assert error.message.startswith("4 inputs are missing:\n  model: 'qwen3.5-4b' is neither")
    assert error.hint == "pipo download qwen3.5-4b qwen3.5-9b pipo-opd-data"
    assert all_missing(errors[:1]) is errors[0]


def test_put_inputs_changes_a_copy() -> None:
    settings = {"arms": [{"ckpt": "a"}, {"ckpt": "b"}], "model": "c"}
    changed = put_inputs(settings, {"arms.1.ckpt": "B", "model": None})
    assert changed == {"arms": [{"ckpt": "a"}, {"ckpt": "B"}], "model": None}
    assert settings["model"] == "c"


def test_the_print_of_a_folder_knows_names_and_contents_but_not_bookkeeping(tmp_path: Path) -> None:
    def print_of(folder: Path) -> str:
        return FingerprintCache().of_artifact(folder).fingerprint

    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_text("1")
    first = print_of(folder)
    for name in ("stage.json", "log.txt", ".lock"):
        (folder / name).write_text("now")
    assert print_of(folder) == first
    (folder / "x").write_text("2")
    changed = print_of(folder)
    (folder / "x").rename(folder / "y")
    assert len({first, changed, print_of(folder)}) == 3


def test_a_list_of_inputs_is_an_input_for_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rollouts.jsonl").touch()
    settings = {"rollouts": [str(tmp_path / "a"), "stage:s"]}
    found = find_inputs("build", settings, {"s": tmp_path / "b"})
    assert [(item.key, item.path) for item in found] == [
        ("rollouts.0", tmp_path / "a" / "rollouts.jsonl"),
        ("rollouts.1", tmp_path / "b" / "rollouts.jsonl"),
    ]
    assert stage_references("build", settings) == [("rollouts.1", "s")]
    paths = {item.key: str(item.path) for item in found}
    assert put_inputs(settings, paths) == {"rollouts": list(paths.values())}
    with pytest.raises(MissingInputError, match=r"rollouts\.1: \./gone does not exist"):
        find_inputs("build", {"rollouts": [str(tmp_path / "a"), "./gone"]})


def test_problems_may_be_a_folder_of_files_and_other_rows_may_not(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.parquet").touch()
    asked = {"model": str(model_folder(tmp_path / "m")), "problems": {"source": str(tmp_path)}}
    assert find_inputs("rollout", asked)[1].path == tmp_path
    (tmp_path / "problems.jsonl").touch()
    assert find_inputs("rollout", asked)[1].path == tmp_path / "problems.jsonl"
    with pytest.raises(MissingInputError, match=r"train\.jsonl does not exist"):
        find_inputs("train", train(str(tmp_path / "m"), str(tmp_path)))
