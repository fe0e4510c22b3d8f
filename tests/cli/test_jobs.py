import json
from pathlib import Path

import pytest

from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.sft import TrainRecipe
from tests.cli.calls import Calls, checkpoint, pipo


def test_a_job_runs_with_its_overrides_and_shows_its_summary(calls: Calls) -> None:
    code, out, _ = pipo("train", "train.yaml", "~epochs", "max_steps=5", "--out", "runs")
    assert code == 0
    recipe = calls.recipes[0]
    assert isinstance(recipe, TrainRecipe)
    assert (recipe.run, recipe.max_steps, recipe.epochs) == ("train", 5, None)
    assert calls.roots == [Path("runs")]
    assert out == "steps  1,200\nloss   0.5123\nwritten: runs/train/train\n"


def test_eval_and_bench_show_their_tables(calls: Calls) -> None:
    code, out, _ = pipo("eval", "eval.yaml")
    assert code == 0
    assert "tiny, 500 problems × 2 answers, at most 256 tokens or 128 slots" in out
    assert ["pipo", "0.5", "87.0", "[86.0,", "88.0]"] in [line.split()[:5] for line in out.splitlines()]
    assert out.endswith("\nwritten: outputs/eval/eval\n")
    out = pipo("bench", "bench.yaml")[1]
    assert ["64", "pipo@0.5", "13.33", "[12.00,", "14.67]"] in [line.split()[:5] for line in out.splitlines()]
    for text in (out, pipo("eval", "eval.yaml")[1], pipo("run", "all.yaml")[1]):
        assert "\x1b" not in text
        assert max(len(line) for line in text.splitlines()) <= 100
        assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_json_is_all_there_is_on_standard_output(calls: Calls) -> None:
    calls.summaries["train"] = {"score": float("nan"), "rows": [1, None]}
    code, out, _ = pipo("train", "train.yaml", "--json")
    assert code == 0
    expected = {"score": None, "rows": [1, None]}
    assert json.loads(out) == {"folder": "outputs/train/train", "skipped": False, "summary": expected}
    code, out, err = pipo("train", "train.yaml", "--json", "modle=x", "sede=3")
    found = json.loads(out)
    assert code == found["exit_code"] == 2
    assert len(found["problems"]) == 2
    assert "did you mean 'model'" in err


def test_a_recipe_of_another_kind_names_its_command(calls: Calls) -> None:
    code, _, err = pipo("train", "eval.yaml", "samples=2")
    assert code == 2
    assert "try: pipo eval eval.yaml samples=2" in err
    assert "try: pipo run all.yaml" in pipo("train", "all.yaml")[2]
    assert "try: pipo train train.yaml" in pipo("run", "train.yaml")[2]
    assert calls.recipes == []


def test_a_missing_recipe_is_exit_code_3(calls: Calls) -> None:
    code, _, err = pipo("train", "trian.yaml")
    assert code == 3
    assert "no such recipe" in err
    assert "try: pipo recipes ls" in err


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_file_is_no_output_folder(calls: Calls, out: str) -> None:
    Path("file").touch()
    code, _, err = pipo("train", "train.yaml", "--out", out)
    assert (code, err.splitlines()[0]) == (2, "pipo: --out: file is a file, not a folder")
    assert calls.recipes == []


def test_a_change_to_a_stage_that_is_not_there_lists_the_stages(calls: Calls) -> None:
    code, _, err = pipo("run", "demo", "merg.seed=3")
    assert code == 2
    assert "no stage 'merg' (did you mean 'merge'?); stages: answers, data, pipo-sft" in err


def test_run_runs_pipelines(calls: Calls) -> None:
    code, out, _ = pipo("run", "all.yaml", "run=mine", "one.seed=3")
    assert code == 0
    assert calls.recipes[0].stages[0].set == {"seed": 3}
    assert [line.split() for line in out.splitlines()[2:5]] == [
        ["train", "unchanged", "1", "min", "01", "s"],
        ["eval", "done", "1", "min", "01", "s"],
        ["bench", "done", "1", "min", "01", "s"],
    ]
    places = [out.index(words) for words in ("eval: tiny", "bench: 4 trials", "- A slot is", "- At 256 tokens")]
    assert places == sorted(places)
    assert "use τ = 0.5 with pipo" in " ".join(out.split())
    assert out.endswith("\nreport: outputs/mine/report.md\n")
    code, out, _ = pipo("run", "all.yaml", "--json")
    assert json.loads(out)["report"] == "outputs/all/report.md"


def test_merge_writes_beside_the_train_run(calls: Calls) -> None:
    checkpoint(Path("outputs/mine/train"))
    code, _, _ = pipo("merge", "outputs/mine/train", "--base", "qwen3.5-4b")
    assert code == 0
    recipe = calls.recipes[0]
    assert isinstance(recipe, MergeRecipe)
    assert (recipe.run, recipe.source, recipe.base) == ("mine", "outputs/mine/train", "qwen3.5-4b")
    Path("adapter").mkdir()
    assert pipo("merge", "adapter")[0] == 0
    assert (calls.recipes[1].run, calls.recipes[1].source) == ("merged-adapter", "./adapter")


def test_build_takes_its_choices_as_options(calls: Calls) -> None:
    calls.summaries["build"] = {"questions": 1, "answers": 2, "dropped": {"wrong": 1}, "train_rows": 1}
    code, out, _ = pipo("build", "sft", "--pick", "shortest", "--max-tokens", "9", "rollouts=[a/b,c/d]")
    assert code == 0
    assert "wrong" in out
    words = ("--minimum-solved", "0.25", "--validation-share", "0.1", "--max-repetition", "0.5", "~hash_range")
    assert pipo("build", "sft", *words)[0] == 0
    first, second = calls.recipes
    assert isinstance(first, BuildRecipe)
    assert (first.rows, first.pick, first.max_tokens, first.rollouts) == ("answers", "shortest", 9, ["a/b", "c/d"])
    assert (second.minimum_solved, second.validation_share, second.max_repetition) == (0.25, 0.1, 0.5)
    assert second.hash_range == [0.0, 1.0]
    assert pipo("build", "opd")[0] == 0
    assert calls.recipes[-1].rows == "questions"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--pick", "shortest", "pick=all"), "--pick and pick=all: give one of them"),
        (("--max-repetition", "0.2", "~max_repetition"), "--max-repetition and ~max_repetition: give one of them"),
        (("--minimum-solved", "2"), "minimum_solved: must be less than or equal to 1"),
        (("--pick", "longest"), "longest"),
    ],
)
def test_choices_that_contradict_or_do_not_exist_are_refused(
    calls: Calls, words: tuple[str, ...], complaint: str
) -> None:
    code, _, err = pipo("build", "sft", *words)
    assert code == 2
    assert complaint in err
    assert calls.recipes == []


def test_a_missing_input_of_a_recipe_that_is_named_by_kind_has_its_hint(calls: Calls) -> None:
    code, out, _ = pipo("build", "sft", "--dry-run")
    assert code == 3
    assert "pipo recipes show build_sft.yaml" in out
