import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.errors import CheckpointError, MissingInputError
from pipo_core.pipeline.run import PipelineResult
from pipo_core.pipeline.stage import StageResult
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.kinds import Recipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.sft import TrainRecipe
from tests.samples import arm, bench, evaluation

TRAIN = "kind: train\nmodel: ./base\ndata: {train: rows.jsonl}\nepochs: 3\nbatch: {accumulation: 4}\n"
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\\nb"}]}\n'
EVAL = (
    "kind: eval\nbudget: {tokens: 9}\nbaseline: a\n"
    "arms: [{name: a, method: regular, ckpt: x/y}, {name: b, method: pipo, ckpt: x/y}]\n"
)
BENCH = "kind: bench\nprompt_tokens: [4]\narms: [{name: a, method: regular, ckpt: x/y}]\n"
COMMANDS = ["run", "download", "train", "merge", "eval", "bench", "rollout", "build"]


class Calls:
    """Stands in for the jobs: keeps the recipes, returns a summary or raises."""

    def __init__(self) -> None:
        self.recipes: list[Any] = []
        self.roots: list[Path] = []
        self.error: BaseException | None = None
        self.summaries: dict[str, dict[str, Any]] = {
            "train": {"steps": 1200, "loss": 0.51234, "seconds": 1.0},
            "merge": {"artifact": "model", "dtype": "bfloat16"},
            "eval": evaluation(arm("pipo", 0.5, 0.87, 1.8)),
            "bench": bench(),
        }

    def stage(self, recipe: Recipe, root: Path, *, reporter: object) -> StageResult:
        self.recipes.append(recipe)
        self.roots.append(root)
        if self.error is not None:
            raise self.error
        summary = self.summaries[recipe.kind]
        return StageResult(root / recipe.run / recipe.kind, recipe.kind, summary, skipped=False, seconds=61.0)

    def pipeline(self, recipe: Recipe, root: Path, *, reporter: object) -> PipelineResult:
        self.recipes.append(recipe)
        folder = root / recipe.run
        stages = [
            StageResult(folder / name, name, self.summaries[name], skipped=name == "train", seconds=61.0)
            for name in ("train", "eval", "bench")
        ]
        return PipelineResult(folder, folder / "report.md", stages)


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


def _pipo(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def _checkpoint(folder: Path, state: str = "done", age: float = 0.0, **config: Any) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(config))
    record = folder / "stage.json"
    record.write_text(json.dumps({"state": state}))
    when = record.stat().st_mtime - age
    os.utime(record, (when, when))
    return folder / "model"


@pytest.mark.parametrize("command", [*COMMANDS, "recipes ls", "recipes show", "recipes copy", "recipes validate"])
def test_every_command_has_help_with_an_example_and_json(command: str) -> None:
    code, out, _ = _pipo(*command.split(), "--help")
    assert code == 0
    assert re.search(r"Examples?: pipo " + command, " ".join(out.split()))
    assert "--json" in out
    assert "--debug" in out
    if command in COMMANDS:
        assert "--dry-run" in out


def test_wrong_usage_is_exit_code_2_with_a_guess() -> None:
    code, _, err = _pipo("trian")
    assert (code, "Did you mean 'train'?" in err) == (2, True)
    assert _pipo("train", "x.yaml", "--bogus")[0] == 2
    assert _pipo("train")[0] == 2


def test_version() -> None:
    code, out, _ = _pipo("--version")
    assert code == 0
    assert re.fullmatch(r"pipo \d+\.\d+\.\d+\n", out)


def test_a_job_runs_with_its_overrides_and_shows_its_summary(calls: Calls) -> None:
    code, out, _ = _pipo("train", "train.yaml", "~epochs", "max_steps=5", "--out", "runs")
    assert code == 0
    recipe = calls.recipes[0]
    assert isinstance(recipe, TrainRecipe)
    assert (recipe.run, recipe.max_steps, recipe.epochs) == ("train", 5, None)
    assert calls.roots == [Path("runs")]
    assert out == "steps  1,200\nloss   0.5123\nwritten: runs/train/train\n"


def test_eval_and_bench_show_their_tables(calls: Calls) -> None:
    code, out, _ = _pipo("eval", "eval.yaml")
    assert code == 0
    assert "tiny, 500 problems × 2 answers, at most 128 slots an answer" in out
    assert ["pipo", "0.5", "87.0", "±", "1.0"] in [line.split()[:5] for line in out.splitlines()]
    assert out.endswith("\nwritten: outputs/eval/eval\n")
    out = _pipo("bench", "bench.yaml")[1]
    assert ["64", "pipo@0.5", "13.33", "[12.00,", "14.67]"] in [line.split()[:5] for line in out.splitlines()]
    for text in (out, _pipo("eval", "eval.yaml")[1], _pipo("run", "all.yaml")[1]):
        assert "\x1b" not in text
        assert max(len(line) for line in text.splitlines()) <= 100
        assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_json_is_all_there_is_on_standard_output(calls: Calls) -> None:
    calls.summaries["train"] = {"score": float("nan"), "rows": [1, None]}
    code, out, _ = _pipo("train", "train.yaml", "--json")
    assert code == 0
    expected = {"score": None, "rows": [1, None]}
    assert json.loads(out) == {"folder": "outputs/train/train", "skipped": False, "summary": expected}
    code, out, err = _pipo("train", "train.yaml", "--json", "modle=x", "sede=3")
    found = json.loads(out)
    assert code == found["exit_code"] == 2
    assert len(found["problems"]) == 2
    assert "did you mean 'model'" in err


def test_a_recipe_of_another_kind_names_its_command(calls: Calls) -> None:
    code, _, err = _pipo("train", "eval.yaml", "samples=2")
    assert code == 2
    assert "try: pipo eval eval.yaml samples=2" in err
    assert "try: pipo run all.yaml" in _pipo("train", "all.yaml")[2]
    assert "try: pipo train train.yaml" in _pipo("run", "train.yaml")[2]
    assert calls.recipes == []


def test_a_missing_recipe_is_exit_code_3(calls: Calls) -> None:
    code, _, err = _pipo("train", "trian.yaml")
    assert code == 3
    assert "no such recipe" in err
    assert "try: pipo recipes ls" in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckpointError("weights are cut off", hint="pipo download x"), 3, "pipo: weights are cut off"),
        (KeyboardInterrupt(), 130, "pipo: interrupted; the same command goes on"),
        (ModuleNotFoundError("no", name="sglang"), 4, "pipo: the Python package 'sglang' is missing"),
        (OSError(28, "No space left on device", "a.bin"), 4, "pipo: a.bin: No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 4, "pipo: out: Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "x"), 3, "pipo: x: No such file or directory"),
        (MemoryError("8 GB"), 4, "pipo: out of memory: 8 GB"),
        (RuntimeError("two\nlines"), 1, "pipo: RuntimeError: two lines"),
        (ZeroDivisionError("by zero"), 1, "pipo: ZeroDivisionError: by zero"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(calls: Calls, error: BaseException, code: int, line: str) -> None:
    calls.error = error
    found, out, err = _pipo("train", "train.yaml")
    assert found == code
    assert out == ""
    assert err.startswith(line)
    assert "Traceback" not in err


def test_a_failed_allocation_on_a_cpu_is_a_lack_of_memory(calls: Calls) -> None:
    calls.error = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    code, _, err = _pipo("train", "train.yaml")
    assert code == 4
    assert err.startswith("pipo: out of memory: ")
    assert "try: a smaller batch" in err


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["eval", "--ckpt", "tiny-student", "--tau", "1.5", "--json"], "--tau"),
        (["train", "train.yaml", "--bogus", "--json"], "--bogus"),
        (["--bogus", "train", "--json"], "--bogus"),
        (["trian", "--json"], "Did you mean 'train'?"),
    ],
)
def test_wrong_usage_is_json_too(calls: Calls, words: list[str], about: str) -> None:
    code, out, err = _pipo(*words)
    found = json.loads(out)
    assert found.keys() == {"error", "hint", "exit_code"}
    assert code == found["exit_code"] == 2
    assert about in found["error"]
    assert found["hint"].endswith(" --help")
    assert about in err


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_file_is_no_output_folder(calls: Calls, out: str) -> None:
    Path("file").touch()
    code, _, err = _pipo("train", "train.yaml", "--out", out)
    assert (code, err.splitlines()[0]) == (2, "pipo: --out: file is a file, not a folder")
    assert calls.recipes == []


def test_a_change_to_a_stage_that_is_not_there_lists_the_stages(calls: Calls) -> None:
    code, _, err = _pipo("run", "demo", "merg.seed=3")
    assert code == 2
    assert "no stage 'merg' (did you mean 'merge'?); stages: answers, data, pipo-sft" in err


def test_debug_shows_the_traceback_before_or_behind_the_command(calls: Calls) -> None:
    calls.error = ZeroDivisionError("by zero")
    for words in (["--debug", "train", "train.yaml"], ["train", "train.yaml", "--debug"]):
        code, _, err = _pipo(*words)
        assert code == 1
        assert "Traceback" in err
        assert err.rstrip().endswith("again with --debug shows where")


def test_dry_run_shows_the_plan_even_without_the_model(calls: Calls) -> None:
    code, out, _ = _pipo("train", "sft", "--dry-run")
    assert code == 0
    assert "cannot start" in out
    assert "learning_rate: 0.0001" in out
    assert "outputs/sft-4b/train" in out
    assert calls.recipes == []
    assert not Path("outputs").exists()


def test_dry_run_counts_the_steps(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text(ROW * 9)
    code, out, _ = _pipo("train", "train.yaml", "--dry-run", "--json", "precision=fp32")
    plan = json.loads(out)
    assert code == 0
    assert plan["action"] == "start"
    command = plan["work"].pop("command")
    assert command.endswith(f" -m pipo_core.train.worker {Path('outputs/train/train/job.json').absolute()}")
    assert plan["work"] == {"rows a step": 4, "rows": 9, "steps": "at most 9"}
    assert plan["inputs"]["data.train"]["path"] == str(Path("rows.jsonl").absolute())
    plan = json.loads(_pipo("train", "train.yaml", "--dry-run", "--json", "data.limit=4")[1])
    assert plan["work"]["steps"] == "at most 3"
    assert not Path("outputs").exists()


def test_dry_run_counts_as_the_training_does_not_by_another_formula(calls: Calls) -> None:
    Path("rows.jsonl").write_text(ROW * 10)
    words = ["batch.per_device=5", "epochs=1.5", "launch.processes=2", "batch.accumulation=1"]
    out = _pipo("train", "train.yaml", "--dry-run", *words)[1]
    assert "at most 2" in out
    assert "torch.distributed.run" in out


def test_dry_run_says_what_the_machine_lacks(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text(ROW)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("pipo_core.train.launch.importlib.util.find_spec", lambda name: None)
    code, out, _ = _pipo("train", "train.yaml", "--dry-run", "--json", "launch.deepspeed=zero2")
    plan = json.loads(out)
    assert (code, plan["action"]) == (0, "cannot start")
    assert plan["reasons"] == ["launch.deepspeed needs DeepSpeed", "precision: bf16 needs a GPU, and there is none"]
    assert plan["next"] == 'pip install "pipo[deepspeed]"'
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    out = _pipo("train", "train.yaml", "--dry-run", "--json", "launch.processes=4")[1]
    assert json.loads(out)["reasons"] == ["launch.processes: 4 need a GPU each, and there are 2"]


def test_dry_run_names_a_bad_row(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text("{}\n")
    out = _pipo("train", "train.yaml", "--dry-run", "--json")[1]
    plan = json.loads(out)
    assert plan["action"] == "cannot start"
    assert "rows.jsonl:1" in plan["reasons"][0]


def test_a_shipped_recipe_says_which_folder_is_missing_and_how_to_make_it(calls: Calls) -> None:
    plan = json.loads(_pipo("train", "tiny/sft", "--dry-run", "--json")[1])
    assert plan["reasons"] == ["data.train: outputs/tiny-data/build does not exist (there is no folder outputs)"]
    assert plan["next"] == "run the commands at the top of the recipe first: pipo recipes show tiny/sft.yaml"
    plan = json.loads(_pipo("train", "tiny/sft", "--dry-run", "--json", "data.train=outputs/foo")[1])
    assert plan["next"] is None


def test_a_start_that_cannot_succeed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = _pipo("train", "tiny/sft.yaml")
    assert code == 3
    assert "pipo recipes show tiny/sft.yaml" in err
    assert list(tmp_path.iterdir()) == []


def test_run_runs_pipelines(calls: Calls) -> None:
    code, out, _ = _pipo("run", "all.yaml", "run=mine", "one.seed=3")
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
    code, out, _ = _pipo("run", "all.yaml", "--json")
    assert json.loads(out)["report"] == "outputs/all/report.md"


def test_dry_run_of_a_pipeline_changes_nothing(calls: Calls) -> None:
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    Path("rows.jsonl").write_text("{}\n")
    code, out, _ = _pipo("run", "all.yaml", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["stages"][0] | {"recipe": ""} == {
        "stage": "one",
        "kind": "train",
        "action": "start",
        "because": "",
        "recipe": "",
    }
    assert "one" in _pipo("run", "all.yaml", "--dry-run")[1]
    assert not Path("outputs").exists()


def test_merge_writes_beside_the_train_run(calls: Calls) -> None:
    _checkpoint(Path("outputs/mine/train"))
    code, _, _ = _pipo("merge", "outputs/mine/train", "--base", "qwen3.5-4b")
    assert code == 0
    recipe = calls.recipes[0]
    assert isinstance(recipe, MergeRecipe)
    assert (recipe.run, recipe.source, recipe.base) == ("mine", "outputs/mine/train", "qwen3.5-4b")
    Path("adapter").mkdir()
    assert _pipo("merge", "adapter")[0] == 0
    assert (calls.recipes[1].run, calls.recipes[1].source) == ("merged-adapter", "./adapter")


@pytest.fixture
def standard(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The shipped recipes that eval and bench begin with, as small ones."""
    folder = Path("shipped/tiny").absolute()
    folder.mkdir(parents=True)
    (folder / "eval.yaml").write_text(EVAL)
    (folder / "bench.yaml").write_text(BENCH)
    monkeypatch.setattr("pipo_core.recipes.locate.recipe_folder", lambda: folder.parent)
    return calls


def test_eval_takes_the_newest_finished_checkpoint_and_names_it_first(standard: Calls) -> None:
    _checkpoint(Path("outputs/old/merge"), age=100, compressor_type="mlp")
    newest = _checkpoint(Path("outputs/new/merge"), age=50, compressor_type="mlp")
    _checkpoint(Path("outputs/broken/merge"), state="running", compressor_type="mlp")
    _checkpoint(Path("outputs/new/merge.previous"), compressor_type="mlp")
    code, out, _ = _pipo("eval", "--suite", "tiny", "--tau", "0.5", "samples=2")
    assert code == 0
    assert out.splitlines()[0] == f"checkpoint: {newest} (the newest)"
    recipe = standard.recipes[0]
    assert isinstance(recipe, EvalRecipe)
    assert (recipe.run, recipe.samples, recipe.baseline) == ("eval-new-merge", 2, None)
    assert [(arm.method, arm.ckpt, arm.tau) for arm in recipe.arms] == [("pipo", str(newest), 0.5)]
    code, out, err = _pipo("eval", "--json")
    assert json.loads(out)["skipped"] is False
    assert str(newest) in err


@pytest.mark.parametrize("record", ["[]", "{", "3"])
def test_eval_passes_over_a_damaged_record(standard: Calls, record: str) -> None:
    whole = _checkpoint(Path("outputs/whole/merge"), age=50, compressor_type="mlp")
    _checkpoint(Path("outputs/damaged/merge"), compressor_type="mlp")
    Path("outputs/damaged/merge/stage.json").write_text(record)
    code, out, _ = _pipo("eval")
    assert (code, out.splitlines()[0]) == (0, f"checkpoint: {whole} (the newest)")


@pytest.mark.parametrize("command", ["eval", "bench"])
def test_a_checkpoint_is_looked_for_before_its_options_are_judged(standard: Calls, command: str) -> None:
    code, _, err = _pipo(command, "--ckpt", "outputs/nope", "--tau", "0.5")
    assert code == 3
    assert "outputs/nope does not exist" in err
    assert "try: without --ckpt the newest" in err
    assert "arms" not in err
    _checkpoint(Path("plain"))
    for words in ([], ["--method", "regular"]):
        code, _, err = _pipo(command, "--ckpt", "plain", "--tau", "0.5", *words)
        assert code == 2
        assert "--tau is for pair models" in err
        assert "arms" not in err
    assert standard.recipes == []


def test_eval_without_any_checkpoint_says_what_to_do(standard: Calls) -> None:
    code, _, err = _pipo("eval")
    assert code == 3
    assert "--ckpt" in err


def test_eval_and_bench_take_a_checkpoint_and_method(standard: Calls) -> None:
    model = _checkpoint(Path("elsewhere"))
    words = ["--ckpt", str(model), "--method", "pipo", "--tau", "0.5", "--tau", "0.9"]
    assert _pipo("eval", *words)[0] == 0
    assert standard.recipes[0].arms[0].tau == [0.5, 0.9]
    assert _pipo("bench", "--ckpt", "elsewhere", "prompt_tokens=[8]")[0] == 0
    bench = standard.recipes[1]
    assert isinstance(bench, BenchRecipe)
    assert (bench.arms[0].method, bench.arms[0].ckpt, bench.prompt_tokens) == ("regular", "./elsewhere", [8])
    assert _pipo("eval", "--ckpt", str(model), "--tau", "1.5")[0] == 2
    assert _pipo("eval", "--ckpt", str(model), "--method", "magic")[0] == 2


def test_eval_and_bench_run_recipes_of_ones_own(standard: Calls) -> None:
    assert _pipo("eval", "eval.yaml", "samples=3")[0] == 0
    assert [arm.name for arm in standard.recipes[0].arms] == ["a", "b"]
    assert _pipo("bench", "bench.yaml", "--ckpt", "tiny-student")[0] == 0
    assert standard.recipes[1].arms[0].ckpt == "tiny-student"


def test_recipes_ls_show_schema(calls: Calls) -> None:
    rows = json.loads(_pipo("recipes", "ls", "--json")[1])
    assert "sft.yaml" in [row["name"] for row in rows]
    assert "sft.yaml" in _pipo("recipes", "ls")[1]
    assert _pipo("recipes", "show", "train.yaml")[1] == TRAIN
    assert "rank: 64" in _pipo("recipes", "show", "train.yaml", "--resolved")[1]
    assert json.loads(_pipo("recipes", "show", "train.yaml", "seed=4", "--json")[1])["seed"] == 4
    assert "additionalProperties" in json.loads(_pipo("recipes", "schema", "train", "--json")[1])
    out = _pipo("recipes", "schema", "eval")[1]
    assert "arms.N.tau" in out
    code, _, err = _pipo("recipes", "schema", "trian")
    assert (code, "did you mean 'train'" in err) == (2, True)


def test_recipes_validate_names_every_problem(calls: Calls) -> None:
    assert _pipo("recipes", "validate", "train.yaml")[:2] == (0, "train.yaml: a valid train recipe\n")
    Path("bad.yaml").write_text(TRAIN + "sede: 3\nruns: 1\n")
    code, out, err = _pipo("recipes", "validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert "bad.yaml:6:1 sede: unknown key (did you mean 'seed'?)" in err
    assert "bad.yaml:7:1 runs: unknown key (did you mean 'run'?)" in err


def test_recipes_validate_takes_several_and_changes_all_of_them(calls: Calls) -> None:
    code, out, _ = _pipo("recipes", "validate", "train.yaml", "eval.yaml", "seed=7")
    assert (code, out) == (0, "train.yaml: a valid train recipe\neval.yaml: a valid eval recipe\n")
    rows = json.loads(_pipo("recipes", "validate", "train.yaml", "eval.yaml", "--json")[1])
    assert [(row["recipe"], row["kind"]) for row in rows] == [("train.yaml", "train"), ("eval.yaml", "eval")]
    assert json.loads(_pipo("recipes", "validate", "train.yaml", "--json")[1])["kind"] == "train"
    code, out, err = _pipo("recipes", "validate", "~epochs", "train.yaml", "max_steps=3", "eval.yaml")
    assert (code, out) == (2, "train.yaml: a valid train recipe\n")
    assert "max_steps" in err
    assert _pipo("recipes", "validate", "seed=7")[0] == 2


def test_recipes_validate_names_the_problems_of_all(calls: Calls) -> None:
    Path("bad.yaml").write_text(TRAIN + "sede: 3\n")
    code, out, err = _pipo("recipes", "validate", "bad.yaml", "train.yaml", "gone.yaml")
    assert (code, out) == (2, "train.yaml: a valid train recipe\n")
    assert err.startswith("pipo: 2 of 3 recipes: 2 problems\n")
    assert "bad.yaml:6:1 sede: unknown key (did you mean 'seed'?)" in err
    assert "gone.yaml: no such recipe" in err
    found = json.loads(_pipo("recipes", "validate", "bad.yaml", "gone.yaml", "--json")[1])
    assert len(found["problems"]) == 2
    assert _pipo("recipes", "validate", "train.yaml", "gone.yaml")[0] == 3


def test_recipes_copy_never_overwrites_unasked(calls: Calls) -> None:
    Path("mine").mkdir()
    assert _pipo("recipes", "copy", "sft", "mine")[0] == 0
    assert Path("mine/sft.yaml").read_text().startswith("# PIPO")
    code, _, err = _pipo("recipes", "copy", "train.yaml", "mine/sft.yaml")
    assert (code, "exists" in err) == (2, True)
    assert _pipo("recipes", "copy", "train.yaml", "mine/sft.yaml", "--force")[0] == 0
    assert Path("mine/sft.yaml").read_text() == TRAIN


def test_download_lists_and_copies(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = Path("bundled").absolute()
    for name in ("tiny-student", "tiny-teacher"):
        (bundled / name).mkdir(parents=True)
        (bundled / name / "config.json").write_text("{}")
    monkeypatch.setattr("pipo_core.hub.download.bundled_model", lambda name: bundled / name)
    assert "qwen3.5-4b" in _pipo("download", "--list")[1]
    assert json.loads(_pipo("download", "--list", "--json")[1])[0]["from"] == "bundled"
    assert "nothing was downloaded" in _pipo("download", "tiny", "--dry-run")[1]
    assert not Path("models").exists()
    assert _pipo("download", "tiny")[0] == 0
    assert Path("models/tiny-student/config.json").is_file()
    items = json.loads(_pipo("download", "tiny-teacher", "--to", "x", "--json")[1])["items"]
    assert [item["path"] for item in items] == ["x/tiny-teacher"]
    assert _pipo("download")[0] == 2
    assert _pipo("download", "tyni")[0] == 3


def test_a_download_that_fails_is_exit_code_3(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **kwargs: object) -> list[object]:
        raise MissingInputError("the hub cannot be reached", hint="later")

    get: Callable[..., list[object]] = absent
    monkeypatch.setattr("pipo_core.hub.download.download", get)
    code, _, err = _pipo("download", "qwen3.5-4b")
    assert (code, err) == (3, "pipo: the hub cannot be reached\n  try: later\n")
