import shutil
from pathlib import Path

import pytest

from pipo_core.recipes.locate import shipped_suites
from tests.cli.calls import BENCH, EVAL, TRAIN, Calls


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    monkeypatch.chdir(tmp_path)
    made = Calls()
    monkeypatch.setattr("pipo_core.pipeline.stage.run_stage", made.stage)
    monkeypatch.setattr("pipo_core.pipeline.run.run_pipeline", made.pipeline)
    Path("train.yaml").write_text(TRAIN)
    Path("eval.yaml").write_text(EVAL)
    Path("bench.yaml").write_text(BENCH)
    Path("all.yaml").write_text("kind: pipeline\nstages: [{name: one, recipe: train.yaml}]\n")
    return made


@pytest.fixture
def standard(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The shipped recipes that eval and bench begin with, as small ones."""
    folder = Path("shipped/tiny").absolute()
    folder.mkdir(parents=True)
    (folder.parent / "eval.yaml").write_text(EVAL)
    (folder.parent / "suites").mkdir()
    shutil.copy(shipped_suites()["tiny"], folder.parent / "suites")
    (folder / "bench.yaml").write_text(BENCH)
    monkeypatch.setattr("pipo_core.recipes.locate.recipe_folder", lambda: folder.parent)
    return calls
