"""Pipelines: references between stages, what runs again after a change, and the report's place in it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError, PipoError, RecipeError
from pipo_core.files import FolderLock, append_jsonl, read_json, read_jsonl, write_json
from pipo_core.pipeline.run import PipelineResult, plan_pipeline, run_pipeline
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.reporting import SilentReporter

WriteRows = Callable[..., Path]


class TrainJob:
    """A train job whose model is the number of rows it saw."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        self.calls += 1
        (out / "model").mkdir(exist_ok=True)
        rows = len(read_jsonl(Path(recipe.data.train)))
        write_json(out / "model" / "config.json", {"rows": rows, "from": Path(recipe.model).name})
        append_jsonl(out / "metrics.jsonl", [{"step": 1}])
        return {"rows": rows}


@pytest.fixture
def pipeline(tmp_path: Path, write_rows: WriteRows) -> Callable[..., PipelineRecipe]:
    """Return the loader of a pipeline: build, train on it, train again on the first model."""
    write_rows()
    base = tmp_path / "base"
    base.mkdir()
    write_json(base / "config.json", {})
    recipes = {
        "build": {"kind": "build", "rollouts": str(tmp_path / "rollouts.jsonl")},
        "train": {
            "kind": "train",
            "model": str(base),
            "data": {"train": "stage:build"},
            "max_steps": 1,
        },
        "pipe": {
            "kind": "pipeline",
            "run": "demo",
            "stages": [
                {"name": "data", "recipe": "build.yaml"},
                {"name": "first", "recipe": "train.yaml", "set": {"data.train": "stage:data/train.jsonl"}},
                {
                    "name": "second",
                    "recipe": "train.yaml",
                    "set": {"model": "stage:first", "data.train": "stage:data"},
                },
            ],
        },
    }
    for name, recipe in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))

    def load(*overrides: str) -> PipelineRecipe:
        recipe = load_recipe(tmp_path / "pipe.yaml", overrides)
        assert isinstance(recipe, PipelineRecipe)
        return recipe

    return load


@pytest.fixture
def run(tmp_path: Path, copy_job: Any, pipeline: Callable[..., PipelineRecipe]) -> Callable[..., PipelineResult]:
    jobs = {"build": copy_job(), "train": TrainJob()}

    def run_it(*overrides: str, reporter: Any = None, **other_jobs: Any) -> PipelineResult:
        return run_pipeline(
            pipeline(*overrides),
            tmp_path / "out",
            reporter=reporter or SilentReporter(),
            jobs={**jobs, **other_jobs},
        )

    return run_it


def skipped(result: PipelineResult) -> list[bool]:
    return [stage.skipped for stage in result.stages]


def test_stages_take_what_earlier_ones_made(tmp_path: Path, run: Callable[..., PipelineResult]) -> None:
    result = run()
    assert [stage.folder for stage in result.stages] == [
        tmp_path / "out" / "demo" / name for name in ("data", "first", "second")
    ]
    second = read_json(tmp_path / "out" / "demo" / "second" / "stage.json")
    assert second["inputs"]["model"]["path"] == str(tmp_path / "out" / "demo" / "first" / "model")
    assert second["inputs"]["data.train"]["path"] == str(tmp_path / "out" / "demo" / "data" / "train.jsonl")
    assert result.report == tmp_path / "out" / "demo" / "report.md"
    assert result.report.is_file()


def test_each_stage_has_a_heading_with_its_number(run: Callable[..., PipelineResult], listener: Any) -> None:
    run(reporter=listener)
    assert listener.said == ["[1/3] data (build)", "[2/3] first (train)", "[3/3] second (train)"]


def test_a_second_run_does_nothing(tmp_path: Path, run: Callable[..., PipelineResult]) -> None:
    run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert skipped(run()) == [True, True, True]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_second_run_imports_neither_torch_nor_matplotlib(tmp_path: Path, run: Callable[..., PipelineResult]) -> None:
    run()
    script = (
        "import sys; from pathlib import Path; from pipo_core.pipeline.run import run_pipeline\n"
        "from pipo_core.recipes.load import load_recipe; from pipo_core.reporting import SilentReporter\n"
        "recipe = load_recipe(Path(sys.argv[1]))\n"
        "result = run_pipeline(recipe, Path(sys.argv[2]), reporter=SilentReporter())\n"
        "assert all(stage.skipped for stage in result.stages)\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'swift', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pipe.yaml"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_changed_stage_runs_again_with_what_depends_on_its_artifacts(
    run: Callable[..., PipelineResult], write_rows: WriteRows
) -> None:
    run()
    assert skipped(run("first.max_steps=2")) == [True, False, True], "the same model came out"
    write_rows(count=5)
    assert skipped(run("first.max_steps=2")) == [False, False, False]
    assert skipped(run("first.max_steps=2")) == [True, True, True]


def test_the_report_is_written_again_when_it_is_lost_or_old(
    run: Callable[..., PipelineResult],
) -> None:
    report = run().report
    report.unlink()
    assert run().report.is_file()
    report.write_text("edited")  # newer than every stage
    run()
    assert report.read_text() != "edited"
    written = report.stat().st_mtime_ns
    os.utime(report, ns=(1, 1))
    run()
    assert report.stat().st_mtime_ns == 1 < written, "the same content is not written again"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PipoError("no room")])
def test_a_stopped_pipeline_goes_on_at_the_stage_that_stopped(
    run: Callable[..., PipelineResult], tmp_path: Path, copy_job: Any, error: BaseException
) -> None:
    copy = copy_job(stop_at=2, error=error)
    with pytest.raises(type(error)):
        run(build=copy)
    assert not (tmp_path / "out" / "demo" / "first").exists()
    assert not (tmp_path / "out" / "demo" / "report.md").exists()
    result = run(build=copy)
    assert copy.calls == [("data", 0), ("data", 2)]
    assert result.stages[-1].summary == {"rows": 4}


def test_a_missing_model_of_a_late_stage_is_said_before_the_first_runs(
    tmp_path: Path, run: Callable[..., PipelineResult]
) -> None:
    with pytest.raises(MissingInputError, match="model"):
        run("second.model=no/such-model")
    assert not (tmp_path / "out").exists()


def test_a_reference_to_a_later_stage_is_a_recipe_error(run: Callable[..., PipelineResult]) -> None:
    with pytest.raises(RecipeError, match="second"):
        run("first.model=stage:second")


def test_one_pipeline_of_a_name_at_a_time(tmp_path: Path, run: Callable[..., PipelineResult]) -> None:
    with FolderLock(tmp_path / "out" / "demo"), pytest.raises(PipoError, match="another pipo process"):
        run()


def test_the_plan_says_what_a_run_would_do(
    tmp_path: Path,
    run: Callable[..., PipelineResult],
    pipeline: Callable[..., PipelineRecipe],
) -> None:
    def actions(*overrides: str) -> list[str]:
        return [stage.action for stage in plan_pipeline(pipeline(*overrides), tmp_path / "out")]

    assert actions() == ["start", "wait", "wait"]
    assert not (tmp_path / "out").exists()
    run()
    assert actions() == ["skip", "skip", "skip"]
    assert actions("first.max_steps=2") == ["skip", "start again", "wait"]
