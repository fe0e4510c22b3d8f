import json
from pathlib import Path

from tests.cli.calls import TRAIN, Calls, pipo


def test_recipes_ls_show_schema(calls: Calls) -> None:
    rows = json.loads(pipo("recipes", "ls", "--json")[1])
    assert "sft.yaml" in [row["name"] for row in rows]
    assert "sft.yaml" in pipo("recipes", "ls")[1]
    assert pipo("recipes", "show", "train.yaml")[1] == TRAIN
    assert "rank: 64" in pipo("recipes", "show", "train.yaml", "--resolved")[1]
    assert json.loads(pipo("recipes", "show", "train.yaml", "seed=4", "--json")[1])["seed"] == 4
    assert "additionalProperties" in json.loads(pipo("recipes", "schema", "train", "--json")[1])
    out = pipo("recipes", "schema", "eval")[1]
    assert "arms.N.tau" in out
    code, _, err = pipo("recipes", "schema", "trian")
    assert (code, "did you mean 'train'" in err) == (2, True)


def test_recipes_validate_names_every_problem(calls: Calls) -> None:
    assert pipo("recipes", "validate", "train.yaml")[:2] == (0, "train.yaml: a valid train recipe\n")
    Path("bad.yaml").write_text(TRAIN + "sede: 3\nruns: 1\n")
    code, out, err = pipo("recipes", "validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert "bad.yaml:6:1 sede: unknown key (did you mean 'seed'?)" in err
    assert "bad.yaml:7:1 runs: unknown key (did you mean 'run'?)" in err


def test_recipes_validate_takes_several_and_changes_all_of_them(calls: Calls) -> None:
    code, out, _ = pipo("recipes", "validate", "train.yaml", "eval.yaml", "seed=7")
    assert (code, out) == (0, "train.yaml: a valid train recipe\neval.yaml: a valid eval recipe\n")
    rows = json.loads(pipo("recipes", "validate", "train.yaml", "eval.yaml", "--json")[1])
    assert [(row["recipe"], row["kind"]) for row in rows] == [("train.yaml", "train"), ("eval.yaml", "eval")]
    assert json.loads(pipo("recipes", "validate", "train.yaml", "--json")[1])["kind"] == "train"
    code, out, err = pipo("recipes", "validate", "~epochs", "train.yaml", "max_steps=3", "eval.yaml")
    assert (code, out) == (2, "train.yaml: a valid train recipe\n")
    assert "max_steps" in err
    assert pipo("recipes", "validate", "seed=7")[0] == 2


def test_recipes_validate_names_the_problems_of_all(calls: Calls) -> None:
    Path("bad.yaml").write_text(TRAIN + "sede: 3\n")
    code, out, err = pipo("recipes", "validate", "bad.yaml", "train.yaml", "gone.yaml")
    assert (code, out) == (2, "train.yaml: a valid train recipe\n")
    assert err.startswith("pipo: 2 of 3 recipes: 2 problems\n")
    assert "bad.yaml:6:1 sede: unknown key (did you mean 'seed'?)" in err
    assert "gone.yaml: no such recipe" in err
    found = json.loads(pipo("recipes", "validate", "bad.yaml", "gone.yaml", "--json")[1])
    assert len(found["problems"]) == 2
    assert pipo("recipes", "validate", "train.yaml", "gone.yaml")[0] == 3


def test_recipes_copy_never_overwrites_unasked(calls: Calls) -> None:
    Path("mine").mkdir()
    assert pipo("recipes", "copy", "sft", "mine")[0] == 0
    assert Path("mine/sft.yaml").read_text().startswith("# PIPO")
    code, _, err = pipo("recipes", "copy", "train.yaml", "mine/sft.yaml")
    assert (code, "exists" in err) == (2, True)
    assert pipo("recipes", "copy", "train.yaml", "mine/sft.yaml", "--force")[0] == 0
    assert Path("mine/sft.yaml").read_text() == TRAIN


def test_runs_of_a_copy_do_not_take_the_place_of_the_originals(calls: Calls) -> None:
    assert pipo("recipes", "copy", "tiny/sft", "mine.yaml")[0] == 0
    assert json.loads(pipo("recipes", "show", "tiny/sft", "--resolved", "--json")[1])["run"] == "tiny-pipo"
    copied = json.loads(pipo("recipes", "show", "mine.yaml", "--resolved", "--json")[1])
    assert copied["run"] == "mine"
    assert copied["data"]["train"] == "outputs/tiny-data/build"
