"""`pipo calibrate`: its options become a recipe, and its result tables and sentences."""

import json
from pathlib import Path

import pytest

from pipo_core.recipes.base import dump
from pipo_core.recipes.calibrate import CalibrateRecipe
from tests.cli.calls import Calls, checkpoint, pipo
from tests.profiles import profile, setting

RECIPE = "kind: calibrate\nrun: mine\nckpt: x/y\nsuite: tiny\ntau: [0.5]\n"


@pytest.fixture
def shipped(standard: Calls) -> Calls:
    """A small recipe in the place of the shipped one."""
    Path("shipped/calibrate.yaml").write_text(RECIPE)
    Path("calibrate.yaml").write_text(RECIPE)
    made = profile([setting(0.5), setting(None)], {1: [2.0, 1.0], 4: [3.0, 4.0]})
    standard.summaries["calibrate"] = {"profile": dump(made), "findings": ["1 request: use `pipo@0.5`."]}
    return standard


def asked(calls: Calls) -> CalibrateRecipe:
    recipe = calls.recipes[-1]
    assert isinstance(recipe, CalibrateRecipe)
    return recipe


def test_options_become_the_recipe(shipped: Calls) -> None:
    model = checkpoint(Path("outputs/a/merge"), compressor_type="mlp")
    plain = checkpoint(Path("plain"))
    words = ["--ckpt", str(model), "--regular", "plain", "--suite", "tiny", "--limit", "7", "tau=[0.1,0.9]"]
    code, out, _ = pipo("calibrate", *words)
    assert code == 0
    recipe = asked(shipped)
    assert (recipe.ckpt, recipe.tau, recipe.problems.count) == (str(model), [0.1, 0.9], 7)
    assert recipe.regular is not None
    assert recipe.regular.ckpt == "./plain"
    assert plain.is_dir()
    assert recipe.run == "calibrate-a-merge"
    assert "1 request: use pipo@0.5." in out
    assert "expected at 64 tokens of context" in out


def test_rows_take_the_place_of_the_suite(shipped: Calls) -> None:
    checkpoint(Path("outputs/a/merge"), compressor_type="mlp")
    assert pipo("calibrate", "--rows", "rows/x.jsonl", "--limit", "3", "budget.tokens=8")[0] == 0
    recipe = asked(shipped)
    assert recipe.suite is None
    assert recipe.rows is not None
    assert (recipe.rows.file, recipe.rows.count) == ("rows/x.jsonl", 3)


def test_the_newest_checkpoint_is_named_and_a_recipe_keeps_its_own(shipped: Calls) -> None:
    model = checkpoint(Path("outputs/a/merge"), compressor_type="mlp")
    code, out, _ = pipo("calibrate")
    assert (code, out.splitlines()[0]) == (0, f"checkpoint: {model} (the newest)")
    assert pipo("calibrate", "calibrate.yaml", "seed=4")[0] == 0
    assert (asked(shipped).ckpt, asked(shipped).run, asked(shipped).seed) == ("x/y", "mine", 4)
    code, out, _ = pipo("calibrate", "calibrate.yaml", "--json")
    assert json.loads(out)["summary"]["profile"]["kind"] == "profile"


def test_what_cannot_be_calibrated_is_one_line(shipped: Calls) -> None:
    checkpoint(Path("plain"))
    for words, code, complaint in (
        (["--ckpt", "plain"], 2, "--ckpt ./plain is not a pair model"),
        (["--ckpt", "outputs/none"], 3, "outputs/none does not exist"),
        (["--suite", "tiny", "--rows", "r"], 2, "--suite and --rows: give one of them"),
        ([], 3, "no finished checkpoint under outputs"),
        (["eval.yaml"], 2, "eval.yaml is a recipe of kind eval, not calibrate"),
    ):
        found, _, err = pipo("calibrate", *words)
        assert found == code, err
        assert complaint in err
    assert shipped.recipes == []


def test_a_plan_counts_answers_and_trials(shipped: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint(Path("outputs/a/merge"), compressor_type="mlp")
    words = ["--ckpt", str(model), "--limit", "7", "samples=2", "tau=[0.1,0.9]", "loads.requests=[1,8]", "--dry-run"]
    code, out, err = pipo("calibrate", *words, "--json")
    assert code == 0, err
    assert json.loads(out)["work"] == {"answers": 28, "timed loads": "2 × 3 settings × 6 rounds"}
