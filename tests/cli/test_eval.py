"""`pipo eval`: which suite, which checkpoint, and the math suite from end to end on made-up questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from pipo_cli.commands.eval import SuiteChoice
from pipo_core.data.answers import AnswerLog
from pipo_core.evaluate.suites import SUITES
from pipo_core.files import read_json, read_jsonl
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.recipes.catalog import CATALOG, entry
from pipo_core.recipes.evaluate import BENCHMARKS, EvalRecipe, SuiteName
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import bundled_model, find_recipe
from pipo_core.recipes.methods import Decoding
from tests.cli.calls import Calls, checkpoint, pipo

# Characters that the tiny world never writes, and questions of several lengths.
QUESTIONS = [
    {
        "problem": f"Let $\\triangle ABC$ have $\\angle A = {n + 10}^\\circ$ – “acute” ∀ 三角形. {'Find it. ' * n}",
        "answer": str(101 * n),
        "id": str(n),
    }
    for n in range(4)
]
SMALL = ["samples=2", "problems.count=4", "budget={tokens: 24, slots: 16}", "engine.threads=1", "engine.batch=3"]


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("aime/test.jsonl")
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUESTIONS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair model of the tiny world at the start of its training: its drafts and confidences are arbitrary."""
    student = bundled_model("tiny-student")
    torch.manual_seed(0)
    return save_checkpoint(load_checkpoint(student), tmp_path_factory.mktemp("pair") / "model", tokenizer_from=student)


def evaluate(*words: str) -> tuple[int, str, str]:
    return pipo("eval", "--suite", "math", *words, "benchmark=aime", *SMALL)


def test_every_suite_has_its_places() -> None:
    names = set(SUITES)
    assert names == set(get_args(SuiteName)) == {suite.value for suite in SuiteChoice}
    for name in names:
        shipped = load_recipe(find_recipe(f"{name}/eval"))
        assert isinstance(shipped, EvalRecipe)
        assert (shipped.suite, shipped.benchmark) == (name, BENCHMARKS.get(name))
    assert all(CATALOG[benchmark].kind == "benchmark" for benchmark in BENCHMARKS.values())


def test_math_takes_the_newest_checkpoint_and_the_papers_settings(calls: Calls) -> None:
    checkpoint(Path("outputs/old/merge"), age=100, compressor_type="mlp")
    newest = checkpoint(Path("outputs/sft-4b/merge"), age=50, compressor_type="mlp")
    checkpoint(Path("outputs/regular/train"), age=5)  # newer, but no pair model
    code, out, _ = pipo("eval", "--suite", "math")
    assert code == 0
    assert out.splitlines()[0] == f"checkpoint: {newest} (the newest)"
    recipe = calls.recipes[0]
    assert isinstance(recipe, EvalRecipe)
    assert (recipe.suite, recipe.benchmark, recipe.samples, recipe.baseline) == ("math", "aime25", 4, None)
    assert (recipe.budget.tokens, recipe.budget.slots) == (32768, 32768)
    assert [(arm.ckpt, arm.decodings()) for arm in recipe.arms] == [(str(newest), [Decoding("pipo", tau=0.95)])]


def test_suites_and_recipes_do_not_take_each_others_folders(calls: Calls) -> None:
    for words in (["--suite", "math"], ["--suite", "tiny"], [], ["math/eval.yaml"], ["eval.yaml"]):
        assert pipo("eval", *words, "--ckpt", "tiny-student")[0] == 0
    assert [recipe.run for recipe in calls.recipes] == [
        "eval-math-tiny-student",
        "eval-tiny-tiny-student",
        "eval-tiny-tiny-student",
        "eval-math-tiny-student",
        "eval-tiny-student",
    ]


def test_a_suite_beside_a_recipe_is_refused(calls: Calls) -> None:
    code, _, err = pipo("eval", "eval.yaml", "--suite", "math")
    assert (code, err.splitlines()[0]) == (2, "pipo: --suite math and the recipe eval.yaml: give one of them")
    assert pipo("eval", "--suite", "maths")[0] == 2
    assert calls.recipes == []


def test_without_the_benchmark_the_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, _, err = pipo("eval", "--suite", "math", "--ckpt", "tiny-student")
    assert (code, err) == (
        3,
        "pipo: benchmark: 'aime25' is neither a path here nor in the Hugging Face cache\n  try: pipo download aime25\n",
    )
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(pipo("eval", "--suite", "math", "--ckpt", "tiny-student", "--dry-run", "--json")[1])
    assert (plan["action"], plan["next"], plan["work"]) == ("cannot start", "pipo download aime25", {"answers": 120})
    code, _, err = pipo("eval", "--suite", "math", "--ckpt", "tiny-student", "benchmark=./mine.jsonl")
    assert (code, err) == (3, "pipo: benchmark: ./mine.jsonl does not exist\n")


def test_a_downloaded_benchmark_is_found(questions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    aime = entry("aime25")
    assert aime.revision is not None  # a benchmark does not change under its name
    folder = tmp_path / "hub" / f"datasets--{aime.repo.replace('/', '--')}" / "snapshots" / aime.revision
    folder.mkdir(parents=True)
    words = ["eval", "--suite", "math", "--ckpt", "tiny-student", "--dry-run", "--json"]
    assert json.loads(pipo(*words)[1])["next"] == "pipo download aime25"  # a download that broke off
    questions.rename(folder / "test.jsonl")
    plan = json.loads(pipo(*words)[1])
    assert (plan["action"], plan["inputs"]["benchmark"]["path"]) == ("start", str(folder / "test.jsonl"))


def test_math_from_end_to_end(questions: Path, pair: Path) -> None:
    code, out, err = evaluate("--ckpt", str(pair), "--tau", "0.5", "--tau", "1")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    at_tokens = lines.index("math, 4 problems × 2 answers, at most 24 tokens; [ ] are 95 % intervals")
    at_slots = lines.index("math, 4 problems × 2 answers, at most 16 slots; [ ] are 95 % intervals")
    assert at_tokens < at_slots
    for start, end in ((at_tokens, at_slots), (at_slots, len(lines))):
        shown = " ".join(lines[start:end])
        for word in ("τ", "avg@2", "pass@2", "finished", "tokens a", "kept", "a right"):
            assert word in shown
    folder = next(Path("outputs").glob("eval-math-*")) / "eval"
    results = read_json(folder / "results.json")
    assert results["budget"] == {"tokens": 24, "slots": 16}
    for arm in results["arms"]:
        with AnswerLog(folder / "answers" / f"{arm['label']}.jsonl") as log:
            _is_what_the_answers_say(arm, [log.row(key) for key in log.answers])
    kept = {unit: figures["drafts_kept"] for unit, figures in results["arms"][0]["budgets"].items()}
    assert all(0 < share < 1 for share in kept.values())
    assert all(figures["drafts_kept"] is None for figures in results["arms"][1]["budgets"].values())
    record = read_json(folder / "stage.json")
    assert record["inputs"]["benchmark"]["path"] == str(questions.absolute())
    assert record["inputs"]["benchmark"]["fingerprint"] == FingerprintCache().of_artifact(questions).fingerprint


def _is_what_the_answers_say(arm: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Counts the figures at 16 slots once more, from the rows on disk."""
    assert len(rows) == 8
    at = arm["budgets"]["slots"]
    cuts = [row["slot_token_counts"][:16] for row in rows]
    slots, tokens = sum(map(len, cuts)), sum(map(sum, cuts))
    finished = [row["slots"] <= 16 and row["finish_reason"] == "stop" for row in rows]
    assert at["tokens_per_slot"] == tokens / slots
    assert at["finished"] == sum(finished) / 8
    assert at["avg"]["value"] == sum(ended and row["correct"] for ended, row in zip(finished, rows, strict=True)) / 8
    if arm["tau"] < 1:
        assert at["drafts_kept"] == (tokens - slots) / at["drafts"]


def test_an_interrupted_evaluation_goes_on(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--ckpt", "tiny-student"]
    assert evaluate(*words, "--out", "whole")[0] == 0
    add: Callable[..., None] = AnswerLog.add_answer

    def interrupted(self: AnswerLog, row: dict[str, Any]) -> None:
        if len(self.answers) == 3:
            raise KeyboardInterrupt
        add(self, row)

    monkeypatch.setattr(AnswerLog, "add_answer", interrupted)
    code, _, err = evaluate(*words)
    assert code == 130
    assert "the same command goes on" in err
    answers = Path("outputs/eval-math-tiny-student/eval/answers/regular.jsonl")
    first = read_jsonl(answers)
    assert len(first) == 3
    monkeypatch.setattr(AnswerLog, "add_answer", add)
    # Another batch on the way: what is written does not depend on it.
    assert evaluate(*words, "engine.batch=8")[0] == 0
    assert read_jsonl(answers)[:3] == first
    parts = ("eval-math-tiny-student", "eval", "results.json")
    assert read_json(Path("outputs", *parts)) == read_json(Path("whole", *parts))
    code, out, _ = evaluate(*words)
    assert (code, out.splitlines()[-1]) == (0, "unchanged: outputs/eval-math-tiny-student/eval")


def test_a_changed_question_is_seen(questions: Path) -> None:
    words = ["--ckpt", "tiny-student", "problems.count=1", "budget={tokens: 2}"]
    assert pipo("eval", "--suite", "math", *words, "benchmark=aime")[0] == 0
    questions.write_text(questions.read_text(encoding="utf-8").replace("acute", "obtuse"), encoding="utf-8")
    code, _, err = pipo("eval", "--suite", "math", *words, "benchmark=aime")
    assert code == 0
    assert "runs again, because the content of input benchmark changed" in err


def test_a_broken_benchmark_is_one_line(questions: Path) -> None:
    questions.write_text('{"problem": "?", "id": "0"}\n')
    code, _, err = evaluate("--ckpt", "tiny-student")
    assert (code, err.splitlines()[-1]) == (
        3,
        f"pipo: {questions.absolute()}:1 has no answer (a text or a whole number)",
    )
