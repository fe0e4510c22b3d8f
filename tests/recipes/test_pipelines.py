from pathlib import Path

import pytest

from pipo_core.errors import RecipeError
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.load import load_recipe, stage_recipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.recipes.sft import TrainRecipe

PIPELINE = """\
kind: pipeline
stages:
  - name: train
    recipe: parts/train.yaml
    set: {model: tiny-student, optimizer.learning_rate: 1e-3}
  - name: eval
    recipe: parts/eval.yaml
    set: {arms.0.ckpt: "stage:train"}
"""
TRAIN = "kind: train\nmodel: tiny-teacher\ndata: {train: a/b}\nmax_steps: 10\n"
EVAL = "kind: eval\nbudget: {tokens: 9}\narms:\n  - {name: a, method: pipo, ckpt: x/y}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "train.yaml").write_text(TRAIN)
    (tmp_path / "parts" / "eval.yaml").write_text(EVAL)
    (tmp_path / "all.yaml").write_text(PIPELINE)
    return tmp_path


def _load(path: str, *overrides: str) -> PipelineRecipe:
    recipe = load_recipe(path, overrides)
    assert isinstance(recipe, PipelineRecipe)
    return recipe


def _problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value.problems


def test_stages_are_found_beside_the_pipeline_and_changed_by_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _load("all.yaml")
    assert [stage.recipe for stage in pipeline.stages] == ["parts/train.yaml", "parts/eval.yaml"]
    train, evaluation = (stage_recipe(stage) for stage in pipeline.stages)
    assert isinstance(train, TrainRecipe)
    assert (train.model, train.optimizer.learning_rate) == ("tiny-student", 1e-3)
    assert isinstance(evaluation, EvalRecipe)
    assert evaluation.arms[0].ckpt == "stage:train"
    monkeypatch.chdir("/")
    elsewhere = _load(str(folder / "all.yaml"))
    assert stage_recipe(elsewhere.stages[0]) == train


def test_overrides_reach_into_stages_by_name(folder: Path) -> None:
    pipeline = _load("all.yaml", "train.max_steps=3", "~train.optimizer.learning_rate", "run=other", "eval.samples=2")
    train, evaluation = (stage_recipe(stage) for stage in pipeline.stages)
    assert isinstance(train, TrainRecipe)
    assert isinstance(evaluation, EvalRecipe)
    assert pipeline.run == "other"
    assert (train.max_steps, evaluation.samples) == (3, 2)
    assert _problems("all.yaml", "train.max_steps.x=3", "eval.sample=3") == [
        "stage 'train': override 'train.max_steps.x=3': max_steps is a single value and has no key 'x'",
        "stage 'eval': override 'eval.sample=3': sample: unknown key (did you mean 'samples'?)",
    ]


def test_removing_a_key_in_a_stage(folder: Path) -> None:
    pipeline = _load("all.yaml", "~train.max_steps", "train.epochs=2")
    train = stage_recipe(pipeline.stages[0])
    assert isinstance(train, TrainRecipe)
    assert (train.max_steps, train.epochs) == (None, 2)


def test_problems_of_all_stages_are_named(folder: Path) -> None:
    (folder / "parts" / "train.yaml").write_text(TRAIN.replace("max_steps", "max_stepz"))
    text = PIPELINE.replace("optimizer.learning_rate", "optimizer.learning_rat").replace("stage:train", "stage:trian")
    (folder / "all.yaml").write_text(text + "  - {name: last, recipe: parts/evil.yaml, sett: {}}\nstagse: 1\n")
    assert _problems("all.yaml") == [
        "stage 'train': parts/train.yaml:1:1 give epochs or max_steps",
        "stage 'train': parts/train.yaml:4:1 max_stepz: unknown key (did you mean 'max_steps'?)",
        "stage 'train': all.yaml:5:10 set 'optimizer.learning_rat': optimizer.learning_rat: unknown key "
        "(did you mean 'learning_rate'?)",
        "stage 'eval': all.yaml:8:10 set 'arms.0.ckpt': arms.0.ckpt: no earlier stage is called 'trian' "
        "(did you mean 'train'?)",
        "all.yaml:9:26 stages.2.recipe: no such file: parts/evil.yaml (did you mean 'eval.yaml'?)",
        "all.yaml:9:43 stages.2.sett: unknown key (did you mean 'set'?)",
        "all.yaml:10:1 stagse: unknown key (did you mean 'stages'?)",
    ]


def test_a_missing_recipe_is_named_at_its_line(folder: Path) -> None:
    (folder / "all.yaml").write_text(PIPELINE.replace("parts/eval.yaml", "parts/evil.yaml"))
    assert _problems("all.yaml") == [
        "all.yaml:7:13 stages.1.recipe: no such file: parts/evil.yaml (did you mean 'eval.yaml'?)"
    ]


def test_a_broken_stage_file_does_not_hide_the_other(folder: Path) -> None:
    (folder / "parts" / "train.yaml").write_text("a: b: c")
    (folder / "parts" / "eval.yaml").write_text(EVAL + "sample: 3\n")
    assert _problems("all.yaml") == [
        "stage 'train': parts/train.yaml:1:5 not valid YAML: mapping values are not allowed here",
        "stage 'eval': parts/eval.yaml:5:1 sample: unknown key (did you mean 'samples'?)",
    ]


def test_a_pipeline_is_no_stage_and_names_are_unique(folder: Path) -> None:
    text = "kind: pipeline\nstages:\n  - {name: a, recipe: all.yaml}\n  - {name: a, recipe: parts/train.yaml}\n"
    (folder / "outer.yaml").write_text(text)
    assert _problems("outer.yaml") == [
        "stage 'a': all.yaml is a pipeline; a stage is a single job",
        "outer.yaml:4:12 stages.1.name: a second stage called 'a'",
    ]


def test_a_stage_may_not_refer_to_a_later_one(folder: Path) -> None:
    assert _problems("all.yaml", "train.model=stage:eval/model") == [
        "stage 'train': override 'train.model=stage:eval/model': model: 'stage:eval/model' names a stage, "
        "but there is no stage before this one; give a folder"
    ]


def test_a_copied_pipeline_finds_shipped_stages(folder: Path) -> None:
    (folder / "mine.yaml").write_text("kind: pipeline\nstages:\n  - {name: a, recipe: sft.yaml}\n")
    stage = _load("mine.yaml").stages[0]
    assert stage_recipe(stage).run == "sft-4b"
