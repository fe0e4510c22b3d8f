import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipo_core.errors import MissingInputError
from pipo_core.recipes.base import NEUTRAL, JobRecipe, RecipeModel, dump
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.catalog import CATALOG, entry
from pipo_core.recipes.common import Sampling
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import bundled_model, find_recipe, recipe_folder, shipped_recipes
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.schema import dotted_keys, fields_at, inner_models, neutral_keys
from pipo_core.recipes.sft import TrainRecipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(name: str) -> None:
    path = shipped_recipes()[name]
    recipe = load_recipe(path)
    header = [line for line in path.read_text(encoding="utf-8").split("kind:")[0].splitlines() if line]
    assert header
    assert all(line.startswith("#") for line in header)
    command = "run" if recipe.kind == "pipeline" else recipe.kind
    # Recipes that only make sense as stages name the pipeline that runs them.
    assert re.search(rf"^#\s+pipo ({command}|run) \S+", "\n".join(header), re.MULTILINE), name


def test_shipped_runs_have_folders_of_their_own() -> None:
    runs = [(load_recipe(path).kind, load_recipe(path).run) for path in shipped_recipes().values()]
    assert len(set(runs)) == len(runs)


def test_sft_has_the_papers_values() -> None:
    recipe = load_recipe(find_recipe("sft"))
    assert isinstance(recipe, TrainRecipe)
    assert (recipe.tuning.method, recipe.tuning.rank, recipe.tuning.alpha) == ("lora", 64, 128)
    assert recipe.tuning.dropout == 0.05
    assert (recipe.optimizer.learning_rate, recipe.optimizer.warmup_ratio) == (1e-4, 0.05)
    assert (recipe.optimizer.schedule, recipe.epochs, recipe.data.max_length) == ("cosine", 2, 65535)
    assert (recipe.batch.per_device, recipe.batch.accumulation, recipe.launch.processes) == (1, 16, 8)
    assert [(phase.kind, phase.rho_max) for phase in recipe.pad_augmentation] == [("split", 0.25)]
    assert (recipe.loss.mtp, recipe.loss.confidence) == (1, 1)
    assert (recipe.precision, recipe.gradient_checkpointing) == ("bf16", True)
    assert recipe.launch.deepspeed == "zero2"


def test_sft_for_every_threshold_differs_from_the_papers_by_its_augmentation_alone() -> None:
    ours, papers = (dump(load_recipe(find_recipe(name))) for name in ("sft_every_tau", "sft"))
    assert {key for key in ours if ours[key] != papers[key]} == {"run", "pad_augmentation"}
    tiny = load_recipe(find_recipe("tiny/sft"))
    assert isinstance(tiny, TrainRecipe)
    assert ours["pad_augmentation"] == dump(tiny)["pad_augmentation"], "as it was measured"


def _models(model: type[RecipeModel]) -> Iterator[type[RecipeModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in inner_models(field.annotation):
            yield from _models(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_documented_and_every_required_key_has_an_example(kind: str) -> None:
    for model in _models(KINDS[kind]):
        for name, field in model.model_fields.items():
            inside = inner_models(field.annotation)
            assert field.description or (inside and inside[0].__doc__), f"{model.__name__}.{name}"
            if field.is_required():
                assert field.examples, f"{model.__name__}.{name}"


@pytest.mark.parametrize("kind", KINDS)
def test_examples_make_a_valid_recipe(kind: str) -> None:
    fields = KINDS[kind].model_fields
    values = {name: field.examples[0] for name, field in fields.items() if field.is_required() and field.examples}
    if kind in ("train", "distill"):
        values["max_steps"] = 1
    if kind == "distill":
        values["teacher"] = "x/y"  # or servers of one
    if kind == "build":
        values["rollouts"] = ["x/y"]
    if kind == "calibrate":
        values["suite"] = "tiny"
    assert KINDS[kind].model_validate(values).kind == kind


def test_recipes_are_found_by_path_by_name_and_with_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = recipe_folder() / "sft.yaml"
    monkeypatch.chdir(tmp_path)
    for name in ("sft", "sft.yaml", "recipes/sft.yaml", "./recipes/sft.yaml", str(shipped)):
        assert find_recipe(name) == shipped
    (tmp_path / "sft.yaml").write_text("mine")
    assert find_recipe("sft.yaml") == Path("sft.yaml")
    with pytest.raises(MissingInputError, match=r"did you mean 'sft'\?"):
        find_recipe("stf")
    with pytest.raises(MissingInputError, match="is a folder"):
        find_recipe(str(tmp_path))


def test_shipped_recipes_are_shown_as_seen_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe_folder().parent)
    assert find_recipe("sft") == Path(recipe_folder().name) / "sft.yaml"


def test_catalog_guesses_and_bundled_models_are_told_apart() -> None:
    assert entry("qwen3.5-4b").repo == "Qwen/Qwen3.5-4B"
    with pytest.raises(MissingInputError, match=r"did you mean 'qwen3\.5-4b'\?"):
        entry("qwen3.5-4bb")
    with pytest.raises(MissingInputError, match="not bundled") as caught:
        bundled_model("qwen3.5-4b")
    assert caught.value.hint == "pipo download qwen3.5-4b"
    assert all(bool(value.repo) != value.bundled for value in CATALOG.values())


def test_a_bundled_model_without_weights_here_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.recipes.locate._PACKAGE", tmp_path)
    with pytest.raises(MissingInputError, match="missing from this installation"):
        bundled_model("tiny-student")
    folder = tmp_path / "bundled" / "tiny-student"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert bundled_model("tiny-student") == folder


def test_a_union_shows_the_keys_of_all_its_models() -> None:
    """Engines of several kinds have keys, inputs and neutral settings of their own."""

    class Near(RecipeModel):
        """One kind."""

        kind: Literal["near"] = "near"
        batch: Annotated[int, NEUTRAL] = 1

    class Far(RecipeModel):
        """The other kind."""

        kind: Literal["far"] = "far"
        url: Annotated[str, NEUTRAL] = ""

    class Ask(JobRecipe):
        """A job."""

        engine: Annotated[Near | Far, Field(discriminator="kind")] = Near()

    assert list(fields_at(Ask, ("engine",))) == ["kind", "url", "batch"]
    assert {"engine.batch", "engine.url"} <= set(dotted_keys(Ask))
    assert {"engine.batch", "engine.url"} <= set(neutral_keys(Ask))


def test_a_command_finds_the_shipped_recipe_of_its_kind_by_the_short_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = recipe_folder()
    for name in ("sft", "sft.yaml", "build_sft", "recipes/build_sft.yaml"):
        assert find_recipe(name, "build") == folder / "build_sft.yaml"
    assert find_recipe("opd", "build") == folder / "build_opd.yaml"
    assert find_recipe("math", "rollout") == folder / "rollout_math.yaml"
    assert find_recipe("code", "rollout") == folder / "rollout_code.yaml"
    assert find_recipe("sft", "train") == find_recipe("sft") == folder / "sft.yaml"
    (tmp_path / "sft").write_text("mine")
    assert find_recipe("sft", "build") == Path("sft")


def test_builds_have_the_papers_choices() -> None:
    sft, opd = (load_recipe(find_recipe(name, "build")) for name in ("sft", "opd"))
    assert isinstance(sft, BuildRecipe)
    assert isinstance(opd, BuildRecipe)
    assert (sft.rows, sft.pick, sft.minimum_solved) == ("answers", "all", 0)
    assert (opd.rows, opd.minimum_solved) == ("questions", 0.5)
    # Nine tenths and the rest: no question is in both, and none is in neither.
    assert (sft.hash_range, opd.hash_range) == ([0, 0.9], [0.9, 1])
    for name in ("math", "code"):
        rollout = load_recipe(find_recipe(name, "rollout"))
        assert isinstance(rollout, RolloutRecipe)
        assert rollout.samples == 4
        assert rollout.sampling == Sampling()
        assert f"outputs/{rollout.run}/{rollout.stage}" in sft.rollouts
    assert sft.rollouts == opd.rollouts


def test_the_problems_of_the_shipped_rollouts_are_in_the_catalog() -> None:
    for name in ("math", "code"):
        rollout = load_recipe(find_recipe(name, "rollout"))
        assert isinstance(rollout, RolloutRecipe)
        found = entry(rollout.problems.source)
        assert found.kind == "data"
        assert found.then == f"pipo rollout {name} --dry-run"
        assert found.licence


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"shard": {"index": 2, "count": 2}}, r"shard\.index: must be below count|index: must be below count"),
        ({"problems": {"source": "x/y", "columns": {"question": "q"}}}, "grader: boxed needs the column"),
        (
            {"problems": {"source": "x/y", "columns": {"question": "q", "answer": "a"}}, "grader": "none"},
            "problems.columns.answer: nothing reads it",
        ),
        (
            {"problems": {"source": "x/y", "columns": {"question": "q", "answer": "a", "solution": "s"}}},
            "problems.columns.solution: nothing reads it",
        ),
    ],
)
def test_rollouts_read_what_is_mapped(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RolloutRecipe.model_validate({"model": "x/y", "budget": {"tokens": 1}, **values})


def test_a_shard_has_a_stage_of_its_own() -> None:
    def stage(**shard: int) -> str:
        return RolloutRecipe.model_validate({"model": "x/y", "budget": {"tokens": 1}, "shard": shard}).stage

    assert (stage(), stage(index=0, count=1)) == ("rollout", "rollout")
    assert {stage(index=index, count=3) for index in range(3)} == {f"rollout-{index}-of-3" for index in range(3)}
