import json
from pathlib import Path

import pytest

from pipo_core.files import write_json, write_record
from pipo_core.recipes.base import dump
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.evaluate import EvalRecipe
from tests.cli.calls import Calls, checkpoint, pipo
from tests.profiles import profile, setting


def test_eval_takes_the_newest_finished_checkpoint_and_names_it_first(standard: Calls) -> None:
    checkpoint(Path("outputs/old/merge"), age=100, compressor_type="mlp")
    newest = checkpoint(Path("outputs/new/merge"), age=50, compressor_type="mlp")
    checkpoint(Path("outputs/broken/merge"), state="running", compressor_type="mlp")
    checkpoint(Path("outputs/new/merge.previous"), compressor_type="mlp")
    code, out, _ = pipo("eval", "--suite", "tiny", "--tau", "0.5", "samples=2")
    assert code == 0
    assert out.splitlines()[0] == f"checkpoint: {newest} (the newest)"
    recipe = standard.recipes[0]
    assert isinstance(recipe, EvalRecipe)
    assert (recipe.run, recipe.samples, recipe.baseline) == ("eval-tiny-new-merge", 2, None)
    assert [(arm.method, arm.ckpt, arm.tau) for arm in recipe.arms] == [("pipo", str(newest), 0.5)]
    code, out, err = pipo("eval", "--json")
    assert json.loads(out)["skipped"] is False
    assert str(newest) in err


@pytest.mark.parametrize("record", ["[]", "{", "3"])
def test_eval_passes_over_a_damaged_record(standard: Calls, record: str) -> None:
    whole = checkpoint(Path("outputs/whole/merge"), age=50, compressor_type="mlp")
    checkpoint(Path("outputs/damaged/merge"), compressor_type="mlp")
    Path("outputs/damaged/merge/stage.json").write_text(record)
    code, out, _ = pipo("eval")
    assert (code, out.splitlines()[0]) == (0, f"checkpoint: {whole} (the newest)")


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_a_checkpoint_is_looked_for_before_its_options_are_judged(standard: Calls, command: str) -> None:
    code, _, err = pipo(command, "--ckpt", "outputs/nope", "--tau", "0.5")
    assert code == 3
    assert "outputs/nope does not exist" in err
    assert "try: without --ckpt the newest" in err
    assert "arms" not in err
    checkpoint(Path("plain"))
    for words in ([], ["--method", "regular"]):
        code, _, err = pipo(command, "--ckpt", "plain", "--tau", "0.5", *words)
        assert code == 2
        assert "--tau is for pair models" in err
        assert "arms" not in err
    assert standard.recipes == []


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_a_threshold_is_given_once(standard: Calls, command: str) -> None:
    code, _, err = pipo(command, "--ckpt", "tiny-student", "--tau", "0.5", "--tau", "0.9", "--tau", "0.50")
    assert (code, standard.recipes) == (2, [])
    assert "--tau: 0.5 is given twice" in err
    assert "arms" not in err


def test_eval_without_any_checkpoint_says_what_to_do(standard: Calls) -> None:
    code, _, err = pipo("eval")
    assert code == 3
    assert "--ckpt" in err


def test_eval_and_bench_take_a_checkpoint_and_method(standard: Calls) -> None:
    model = checkpoint(Path("elsewhere"))
    words = ["--ckpt", str(model), "--method", "pipo", "--tau", "0.5", "--tau", "0.9"]
    assert pipo("eval", *words)[0] == 0
    assert standard.recipes[0].arms[0].tau == [0.5, 0.9]
    assert pipo("bench", "--ckpt", "elsewhere", "prompt_tokens=[8]")[0] == 0
    bench = standard.recipes[1]
    assert isinstance(bench, BenchRecipe)
    assert (bench.arms[0].method, bench.arms[0].ckpt, bench.prompt_tokens) == ("regular", "./elsewhere", [8])
    assert pipo("eval", "--ckpt", str(model), "--tau", "1.5")[0] == 2
    assert pipo("eval", "--ckpt", str(model), "--method", "magic")[0] == 2


def test_compare_shows_rows_and_what_differs(tmp_path: Path) -> None:
    for name, threads in (("one", 1), ("two", 2)):
        machine = {"device": "cpu", "precision": "float32", "threads": threads}
        settings = [setting(0.5), setting(None)]
        write_record(
            tmp_path / name / "profile.json", dump(profile(settings, {4: [300, 200 * threads]}, machine=machine))
        )
    places = [str(tmp_path / name) for name in ("one", "two")]
    code, out, _ = pipo("compare", *places)
    lines = out.splitlines()
    assert code == 0
    assert [cell.strip() for cell in lines[-3].split("  ") if cell][:1] == ["4 requests of 64 tokens · regular"]
    assert "2.00×" in lines[-3]
    assert lines[-2:] == ["recommended at 4 requests: nothing in both", "differs: machine.threads: 1 and 2"]
    found = json.loads(pipo("compare", *places, "--json")[1])
    assert found["rows"][-1]["tokens/s"] == 2.0
    assert found["settings"] == {"machine.threads": [1, 2]}
    write_json(tmp_path / "bench" / "unfinished.json", {"kind": "unfinished bench"})
    code, _, err = pipo("compare", str(tmp_path / "bench"), places[0])
    assert code == 3
    assert "bench holds a stage of pipo bench that is not finished" in err


def test_eval_and_bench_run_recipes_of_ones_own(standard: Calls) -> None:
    assert pipo("eval", "eval.yaml", "samples=3")[0] == 0
    assert [arm.name for arm in standard.recipes[0].arms] == ["a", "b"]
    assert pipo("bench", "bench.yaml", "--ckpt", "tiny-student")[0] == 0
    assert standard.recipes[1].arms[0].ckpt == "tiny-student"


def test_bench_compares_servers_as_arms(standard: Calls) -> None:
    urls = ["--url", "http://127.0.0.1:8000/v1", "--url", "http://gpu:8001", "--api-key-env", "THE_KEY"]
    assert pipo("bench", "--ckpt", "tiny-student", *urls, "prompt_tokens=[8]")[0] == 0
    bench = standard.recipes[0]
    assert isinstance(bench, BenchRecipe)
    assert bench.run == "bench-tiny-tiny-student-127-0-0-1-8000-gpu-8001"
    assert [(arm.name, arm.ckpt, arm.method) for arm in bench.arms] == [
        ("127-0-0-1-8000", "tiny-student", "regular"),
        ("gpu-8001", "tiny-student", "regular"),
    ]
    assert bench.servers() == [RemoteSettings(kind="remote", urls=[url], api_key_env="THE_KEY") for url in urls[1:4:2]]
    assert bench.baseline == "127-0-0-1-8000"
    assert pipo("bench", "--ckpt", "tiny-student", "--url", "http://gpu:8001")[0] == 0
    assert standard.recipes[1].baseline is None
    # The recipe's own settings stay, only its arms are replaced.
    assert pipo("bench", "bench.yaml", "--ckpt", "tiny-student", "--url", "http://gpu:8001", "trials=3")[0] == 0
    assert (standard.recipes[2].trials, standard.recipes[2].prompt_tokens) == (3, [4])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--url", "gpu:8001"], "--url: 'gpu:8001' is not an address"),
        (["--url", "http://gpu:1", "--url", "http://gpu:1/"], "--url: an address is given twice"),
        (["--url", "http://gpu:1", "--random-weights", "qwen3.5-0.8b"], "--random-weights and --url"),
        (["--served", "m"], "--served is about the server at --url"),
        (["--api-key-env", "K"], "--api-key-env is about the server at --url"),
    ],
)
def test_bench_refuses_servers_by_the_option(standard: Calls, words: list[str], complaint: str) -> None:
    code, _, err = pipo("bench", "--ckpt", "tiny-student", *words)
    assert code == 2
    assert complaint in err
    assert standard.recipes == []
