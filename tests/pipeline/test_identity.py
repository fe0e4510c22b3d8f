"""Which settings are part of a stage's identity."""

from pathlib import Path
from typing import Any

import pytest

from pipo_core.files import write_json
from pipo_core.pipeline.identity import changes, identity_of
from pipo_core.pipeline.stage import StageResult, run_stage
from pipo_core.pipeline.status import check_stage
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.reporting import SilentReporter
from tests.pipeline.conftest import Listener


def test_settings_that_do_not_change_the_result_do_not_count(tmp_path: Path) -> None:
    calls = []

    def job(recipe: RolloutRecipe, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        calls.append(recipe.engine.model_dump()["batch"])
        if len(calls) == 1:
            raise MemoryError
        return {}

    def recipe(batch: int, tokens: int = 5) -> RolloutRecipe:
        return RolloutRecipe.model_validate(
            {
                "run": "r",
                "model": str(tmp_path / "model"),
                "budget": {"tokens": tokens},
                "engine": {"batch": batch},
            }
        )

    model = tmp_path / "model"
    model.mkdir()
    write_json(model / "config.json", {})
    jobs = {"rollout": job}
    with pytest.raises(MemoryError):
        run_stage(recipe(64), tmp_path / "out", reporter=SilentReporter(), jobs=jobs)
    assert check_stage(recipe(16), tmp_path / "out").action == "go on"
    run_stage(recipe(16), tmp_path / "out", reporter=SilentReporter(), jobs=jobs)
    assert calls == [64, 16]
    assert check_stage(recipe(8), tmp_path / "out").action == "skip"
    assert check_stage(recipe(8, tokens=6), tmp_path / "out").action == "start again"


def test_speed_settings_count_where_speed_is_the_result(tmp_path: Path) -> None:
    def recipe(threads: int, chunk: int = 64) -> BenchRecipe:
        engine = {"batch": 1, "threads": threads, "prefill_chunk": chunk}
        return BenchRecipe.model_validate(
            {"random_weights": "qwen3.5-0.8b", "arms": [{"name": "a", "method": "regular"}], "engine": engine}
        )

    run_stage(recipe(1), tmp_path, reporter=SilentReporter(), jobs={"bench": lambda *_: {}})
    assert check_stage(recipe(1), tmp_path).action == "skip"
    assert check_stage(recipe(2), tmp_path).reasons == ["engine.threads was 1 and is 2"]
    assert check_stage(recipe(1, 32), tmp_path).reasons == ["engine.prefill_chunk was 64 and is 32"]


@pytest.mark.parametrize(("drafts", "again"), [(3, False), (5, True)])
def test_a_retired_key_at_its_default_is_no_change(drafts: int, *, again: bool) -> None:
    recipe = EvalRecipe.model_validate(
        {"arms": [{"name": "a", "method": "regular", "ckpt": "x"}], "budget": {"tokens": 9}, "run": "r"}
    )
    now = identity_of(recipe, {"arms.0.ckpt": "print"})
    settings = recipe.model_dump(mode="json")
    settings["engine"] |= {"drafts": drafts, "draft_vocab": None}
    record = {"settings": settings, "inputs": {"arms.0.ckpt": {"value": "x", "fingerprint": "print"}}}
    assert changes(recipe, now, record) == (["engine.drafts was 5 and is no longer a key"] if again else [])


def test_a_distillation_with_another_engine_is_another_one() -> None:
    """Engines draw other random tokens; how many requests are in flight changes nothing."""

    def recipe(**engine: object) -> DistillRecipe:
        settings = {"model": "x", "teacher": "y", "data": {"train": "z"}, "max_steps": 1, "rollout": {"engine": engine}}
        return DistillRecipe.model_validate(settings)

    prints = {"model": "print", "teacher": "print", "data.train": "print"}
    inputs = {key: {"value": value, "fingerprint": "print"} for key, value in zip(prints, "xyz", strict=True)}
    old = recipe().model_dump(mode="json")
    del old["rollout"]["engine"]  # as versions recorded it that had one engine
    assert changes(recipe(), identity_of(recipe(), prints), {"settings": old, "inputs": inputs}) == []
    served = recipe(kind="sglang")
    found = changes(served, identity_of(served, prints), {"settings": old, "inputs": inputs})
    assert "rollout.engine.kind was 'torch' and is 'sglang'" in found
    record = {"settings": served.model_dump(mode="json"), "inputs": inputs}
    busier = recipe(kind="sglang", concurrency=3)
    assert changes(busier, identity_of(busier, prints), record) == []


def test_a_list_of_inputs_counts_by_content_alone(tmp_path: Path) -> None:
    """The paths of a list of inputs are not settings: folders may be moved, and a changed one is named."""

    def job(recipe: BuildRecipe, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        return {}

    def build(names: list[str]) -> StageResult:
        recipe = BuildRecipe(run="r", rollouts=[str(tmp_path / name) for name in names])
        return run_stage(recipe, tmp_path / "out", reporter=listener, jobs={"build": job})

    listener = Listener()
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert not build(["a", "b"]).skipped
    (tmp_path / "a").rename(tmp_path / "c")
    assert build(["c", "b"]).skipped
    (tmp_path / "b").write_text("other")
    assert not build(["c", "b"]).skipped
    assert "the content of input rollouts.1 changed" in listener.said[-1]
    assert not build(["c"]).skipped
    assert "input rollouts.1 is no longer named" in listener.said[-1]


def test_the_key_that_was_renamed_is_no_change_at_its_default(tmp_path: Path) -> None:
    recipe = BuildRecipe(run="r", rollouts=[str(tmp_path)])
    settings = {**recipe.model_dump(mode="json"), "keep": "correct"}
    del settings["pick"]
    print_of = {"rollouts.0": {"value": str(tmp_path), "fingerprint": "x"}}
    now = identity_of(recipe, {"rollouts.0": "x"})
    assert changes(recipe, now, {"settings": settings, "inputs": print_of}) == []
    assert changes(recipe, now, {"settings": {**settings, "keep": "shortest_correct"}, "inputs": print_of}) == [
        "keep was 'shortest_correct' and is no longer a key"
    ]
