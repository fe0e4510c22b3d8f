"""`pipo eval`: which suite, which checkpoint, and the math suite from end to end on made-up questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipo_core.data.answers import AnswerLog
from pipo_core.files import read_json, read_jsonl
from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.pipeline.records import stage_record, write_stage_record
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.suite import HubSource
from pipo_core.recipes.suites import find_suites
from tests.cli.calls import Calls, checkpoint, pipo
from tests.evaluate.local_copies import local_copy
from tests.evaluate.timeless import timeless

# Characters that the tiny world never writes, and questions of several lengths.
QUESTIONS = [
    {
        "problem": f"Let $\\triangle ABC$ have $\\angle A = {n + 10}^\\circ$ – “acute” ∀ 三角形. {'Find it. ' * n}",
        "answer": str(101 * n),
        "id": str(n),
    }
    for n in range(4)
]


def _hub_source() -> HubSource:
    source = find_suites("math")[0].suite.source
    assert isinstance(source, HubSource)
    return source


HUB = _hub_source()
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
    return pipo("eval", "--suite", "math", *words, "benchmark.math=aime", *SMALL)


def only(results: dict[str, Any]) -> dict[str, Any]:
    (suite,) = results["suites"]
    return dict(suite)


def test_math_takes_the_newest_checkpoint_and_the_papers_settings(calls: Calls) -> None:
    checkpoint(Path("outputs/old/merge"), age=100, compressor_type="mlp")
    newest = checkpoint(Path("outputs/sft-4b/merge"), age=50, compressor_type="mlp")
    checkpoint(Path("outputs/regular/train"), age=5)  # newer, but no pair model
    code, out, _ = pipo("eval", "--suite", "math")
    assert code == 0
    assert out.splitlines()[0] == f"checkpoint: {newest} (the newest)"
    recipe = calls.recipes[0]
    assert isinstance(recipe, EvalRecipe)
    assert (recipe.suite, recipe.benchmark, recipe.samples, recipe.baseline) == ("math", {}, None, None)
    assert recipe.sampling is None  # the suite's own
    assert [(arm.ckpt, arm.decodings()) for arm in recipe.arms] == [(str(newest), [Decoding("pipo", tau=0.95)])]


def test_suites_and_recipes_do_not_take_each_others_folders(calls: Calls) -> None:
    for words in (["--suite", "math"], ["--suite", "tiny"], [], ["tiny/eval.yaml"], ["eval.yaml"]):
        assert pipo("eval", *words, "--ckpt", "tiny-student")[0] == 0
    assert [recipe.run for recipe in calls.recipes] == [
        "eval-math-tiny-student",
        "eval-tiny-tiny-student",
        "eval-tiny-tiny-student",
        "eval-tiny-tiny-student",
        "eval-tiny-student",
    ]


def test_a_suite_beside_a_recipe_is_refused(calls: Calls) -> None:
    code, _, err = pipo("eval", "eval.yaml", "--suite", "math")
    assert (code, err.splitlines()[0]) == (2, "pipo: --suite math and the recipe eval.yaml: give one of them")
    code, _, err = pipo("eval", "--suite", "maths")
    assert (code, err.splitlines()[0]) == (3, "pipo: maths: no such suite (did you mean 'math'?)")
    assert calls.recipes == []


def test_without_the_questions_the_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    words = ["eval", "--suite", "math", "--ckpt", "tiny-student"]
    code, _, err = pipo(*words)
    where = f"{HUB.repo}@{HUB.revision}"
    assert (code, err) == (
        3,
        f"pipo: benchmark.math: the questions ({where}) are not in the Hugging Face cache\n"
        "  try: pipo download --suite math\n",
    )
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(pipo(*words, "--dry-run", "--json")[1])
    assert plan["action"] == "cannot start"
    assert (plan["next"], plan["work"]) == ("pipo download --suite math", {"answers": 120})
    code, _, err = pipo(*words, "benchmark.math=./mine.jsonl")
    assert (code, err) == (3, "pipo: benchmark.math: ./mine.jsonl does not exist\n")
    code, _, err = pipo(*words, "benchmark.mth=./mine.jsonl")
    assert (code, err) == (2, "pipo: benchmark.mth: math asks no suite of this name (did you mean 'math'?)\n")
    code, _, err = pipo(*words, "--profile", "oficial")
    assert code == 2
    assert "suite math has no profile 'oficial' (did you mean 'official'?)" in err


def test_downloaded_questions_are_found(questions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert len(HUB.revision) == 40  # a benchmark does not change under its name
    folder = tmp_path / "hub" / f"datasets--{HUB.repo.replace('/', '--')}" / "snapshots" / HUB.revision
    folder.mkdir(parents=True)
    words = ["eval", "--suite", "math", "--ckpt", "tiny-student", "--dry-run", "--json"]
    assert json.loads(pipo(*words)[1])["next"] == "pipo download --suite math"  # a download that broke off
    questions.rename(folder / "test.jsonl")
    plan = json.loads(pipo(*words)[1])
    assert (plan["action"], plan["inputs"]["benchmark.math"]["path"]) == ("start", str(folder / "test.jsonl"))


def test_math_from_end_to_end(questions: Path, pair: Path) -> None:
    code, out, err = evaluate("--ckpt", str(pair), "--tau", "0.5", "--tau", "1")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    at_tokens = lines.index("math, 4 problems × 2 answers, at most 24 tokens; [ ] are 95 % intervals")
    at_slots = lines.index("math, 4 problems × 2 answers, at most 16 slots; [ ] are 95 % intervals")
    assert at_tokens < at_slots
    for start, end in ((at_tokens, at_slots), (at_slots, len(lines))):
        shown = " ".join(lines[start:end])
        for word in ("τ", "avg@2", "pass@2", "finished", "tokens a", "kept", "right"):
            assert word in shown
    folder = next(Path("outputs").glob("eval-math-*")) / "eval"
    results = read_json(folder / "results.json")
    assert only(results)["budget"] == {"tokens": 24, "slots": 16}
    for arm in only(results)["arms"]:
        with AnswerLog(folder / "answers" / "math" / f"{arm['label']}.jsonl") as log:
            _is_what_the_answers_say(arm, [log.row(key) for key in log.answers])
    kept = {unit: figures["drafts_kept"] for unit, figures in only(results)["arms"][0]["budgets"].items()}
    assert all(0 < share < 1 for share in kept.values())
    assert all(figures["drafts_kept"] is None for figures in only(results)["arms"][1]["budgets"].values())
    record = read_json(folder / "stage.json")
    assert record["inputs"]["benchmark.math"]["path"] == str(questions.absolute())
    assert record["inputs"]["benchmark.math"]["fingerprint"] == FingerprintCache().of_artifact(questions).fingerprint


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
    answers = Path("outputs/eval-math-tiny-student/eval/answers/math/regular.jsonl")
    first = read_jsonl(answers)
    assert len(first) == 3
    monkeypatch.setattr(AnswerLog, "add_answer", add)
    # Another batch on the way: what is written does not depend on it.
    assert evaluate(*words, "engine.batch=8")[0] == 0
    assert read_jsonl(answers)[:3] == first
    parts = ("eval-math-tiny-student", "eval", "results.json")
    assert timeless(read_json(Path("outputs", *parts))) == timeless(read_json(Path("whole", *parts)))
    code, out, _ = evaluate(*words)
    assert (code, out.splitlines()[-1]) == (0, "unchanged: outputs/eval-math-tiny-student/eval")


def test_a_changed_question_is_seen(questions: Path) -> None:
    words = ["--ckpt", "tiny-student", "problems.count=1", "budget={tokens: 2}"]
    assert pipo("eval", "--suite", "math", *words, "benchmark.math=aime")[0] == 0
    questions.write_text(questions.read_text(encoding="utf-8").replace("acute", "obtuse"), encoding="utf-8")
    code, _, err = pipo("eval", "--suite", "math", *words, "benchmark.math=aime")
    assert code == 0
    assert "runs again, because the content of input benchmark.math changed" in err


def test_a_broken_benchmark_is_one_line(questions: Path) -> None:
    questions.write_text('{"problem": "?", "id": "0"}\n')
    code, _, err = evaluate("--ckpt", "tiny-student")
    place = f"{questions.absolute()}:1"
    said = f"pipo: {place}: there is no column 'answer'; it has problem, id"
    assert (code, err.splitlines()[-1]) == (3, said)


def test_options_choose_questions_samples_and_sampling(calls: Calls) -> None:
    words = ["eval", "--suite", "math", "--ckpt", "tiny-student"]
    chosen = ["--limit", "3", "--questions", "4", "--questions", "7", "--samples", "2", "--profile", "official"]
    assert pipo(*words, *chosen, "--sampling", "vendor")[0] == 0
    assert pipo(*words, "--sampling", "paper", "--sampling", "vendor")[0] == 0
    first, second = calls.recipes
    assert isinstance(first, EvalRecipe)
    assert isinstance(second, EvalRecipe)
    assert (first.problems.count, first.problems.ids, first.samples, first.profile) == (3, ["4", "7"], 2, "official")
    assert [(arm.name, arm.sampling) for arm in first.arms] == [("regular", "vendor")]
    assert [(arm.name, arm.sampling) for arm in second.arms] == [
        ("regular-paper", "paper"),
        ("regular-vendor", "vendor"),
    ]
    assert second.baseline == "regular-paper"


def test_servers_of_any_model_need_no_checkpoint(calls: Calls) -> None:
    urls = ["--url", "http://127.0.0.1:9", "--url", "http://other:9"]
    assert pipo("eval", "--suite", "math", *urls, "--served", "m")[0] == 0
    (recipe,) = calls.recipes
    assert isinstance(recipe, EvalRecipe)
    assert [(arm.name, arm.ckpt, arm.method) for arm in recipe.arms] == [
        ("127-0-0-1-9", None, "regular"),
        ("other-9", None, "regular"),
    ]
    assert all(arm.engine is not None and arm.engine.kind == "remote" for arm in recipe.arms)
    code, _, err = pipo("eval", "--url", "http://127.0.0.1:9", "--tau", "0.5")
    assert (code, err.splitlines()[0]) == (2, "pipo: --method and --tau are of a checkpoint")


def test_a_group_is_one_table_of_all_its_suites(questions: Path, tmp_path: Path) -> None:
    local_copy("hmmt", tmp_path / "hmmt")
    group = Path("both.yaml")
    group.write_text("kind: suites\ntitle: both\nsuites: [math, hmmt, tiny]\n")
    copies = ["benchmark.math=aime", "benchmark.hmmt=hmmt"]
    small = ["samples=2", "problems.count=2", "budget={tokens: 8}", "engine.threads=1"]
    words = ["eval", "--suite", "both.yaml", "--ckpt", "tiny-student"]
    code, out, err = pipo(*words, *copies, *small)
    assert code == 0, err
    assert "all suites" in out
    folder = Path("outputs/eval-both-tiny-student/eval")
    results = read_json(folder / "results.json")
    assert [(suite["suite"], suite["problems"]) for suite in results["suites"]] == [
        ("math", 2),
        ("hmmt", 2),
        ("tiny", 2),
    ]
    assert len({suite["questions"] for suite in results["suites"]}) == 3
    assert pipo(*words, *copies, *small)[1].splitlines()[-1] == f"unchanged: {folder}"


def test_answers_are_graded_anew_without_a_model(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["eval", "--suite", "tiny", "--ckpt", "tiny-student", "--limit", "20", "--samples", "2"]
    assert pipo(*words, "engine.threads=1")[0] == 0
    folder = Path("outputs/eval-tiny-tiny-student/eval")
    before, answers = read_json(folder / "results.json"), folder / "answers/tiny/regular.jsonl"
    assert only(before)["arms"][0]["budgets"]["tokens"]["avg"]["value"] > 0.3
    kept = answers.read_bytes()

    def nothing(*_: object) -> None:
        raise AssertionError("no engine is needed")

    with monkeypatch.context() as patch:
        patch.setattr("pipo_core.evaluate.runner.Engines", nothing)
        patch.setattr("pipo_core.grade.MathGrader.grade", lambda *_: False)
        code, out, _ = pipo("eval", "--regrade", str(folder))
    assert (code, out.splitlines()[-1]) == (0, f"written: {folder}")
    assert only(read_json(folder / "results.json"))["arms"][0]["budgets"]["tokens"]["avg"]["value"] == 0
    assert answers.read_bytes().startswith(kept)
    assert pipo("eval", "--regrade", "outputs/eval-tiny-tiny-student")[0] == 0
    assert timeless(read_json(folder / "results.json")) == timeless(before)
    # The stage is finished and whole: its own command has nothing to do.
    assert pipo(*words, "engine.threads=1")[1].splitlines()[-1] == f"unchanged: {folder}"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--regrade", "nowhere"], 3, "nowhere holds no evaluation"),
        (["--regrade", "x", "--limit", "3"], 2, "--regrade takes the folder's own settings"),
        (["--regrade", "x", "--out", "y"], 2, "--regrade takes the folder's own settings"),
        (["--regrade", "x", "samples=3"], 2, "--regrade takes the folder's own settings"),
        (["--served", "m"], 2, "--served is about the server at --url"),
        (["--limit", "0"], 2, "--limit"),
    ],
)
def test_options_that_do_not_fit_are_refused(calls: Calls, words: list[str], code: int, message: str) -> None:
    found, _, err = pipo("eval", *words)
    assert found == code
    assert message in err
    assert calls.recipes == []


def test_what_is_not_a_finished_evaluation_is_not_graded(questions: Path) -> None:
    words = ["eval", "--suite", "tiny", "--ckpt", "tiny-student", "--limit", "2", "--samples", "1"]
    assert pipo(*words, "engine.threads=1")[0] == 0
    folder = Path("outputs/eval-tiny-tiny-student/eval")
    write_stage_record(folder, {**stage_record(folder), "state": "interrupted"})
    code, _, err = pipo("eval", "--regrade", str(folder))
    assert (code, err.splitlines()[0]) == (3, f"pipo: {folder} is not finished (state: interrupted)")


def asked_of(folder: Path, label: str) -> int:
    """Return how many answers are written in an arm's file, those that were asked again counted twice."""
    rows = read_jsonl(folder / "answers" / "tiny" / f"{label}.jsonl")
    return sum("text" in row for row in rows)


def test_a_changed_evaluation_keeps_the_answers_that_are_still_wanted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["eval", "--suite", "tiny", "--limit", "6", "budget={tokens: 6}", "engine.threads=1", "run=e"]
    folder = Path("outputs/e/eval")
    student = '{"name": "a", "method": "regular", "ckpt": "tiny-student"}'
    teacher = '{"name": "b", "method": "regular", "ckpt": "tiny-teacher"}'
    one, both = [f"arms=[{student}]", "baseline=null"], [f"arms=[{student}, {teacher}]", "baseline=a"]
    assert pipo(*small, *one, "--ckpt", "tiny-student", "--samples", "2")[0] == 0
    code, _, err = pipo(*small, *both, "--ckpt", "tiny-student", "--samples", "3")
    assert code == 0
    assert "takes over the answers of 1 files of eval.previous" in err
    assert (asked_of(folder, "a"), asked_of(folder, "b")) == (18, 18)
    fresh = ["--out", "fresh", *both, "--ckpt", "tiny-student", "--samples", "3"]
    assert pipo(*small, *fresh)[0] == 0
    results = [read_json(place / "results.json") for place in (folder, Path("fresh/e/eval"))]
    assert timeless(results[0]) == timeless(results[1])
    # Another sampling: the file is taken over, and every answer asked again.
    assert pipo(*small, *both, "--ckpt", "tiny-student", "--samples", "3", "sampling=paper")[0] == 0
    assert asked_of(folder, "a") == 36
    # Another model under the arm's name, another precision: nothing is taken over.
    swapped = ['arms=[{"name": "a", "method": "regular", "ckpt": "tiny-teacher"}]', "baseline=null"]
    code, _, err = pipo(*small, *swapped, "--ckpt", "tiny-student", "--samples", "3")
    assert (code, asked_of(folder, "a")) == (0, 18)
    assert "takes over" not in err
    code, _, err = pipo(*small, *swapped, "--ckpt", "tiny-student", "--samples", "3", "engine.precision=bf16")
    assert "takes over" not in err
    assert asked_of(folder, "a") == 18


def test_after_a_mended_suite_its_regraded_result_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"problem": "What is 1+1?", "answer": "3", "id": "0"}]  # a wrong reference
    copy = Path("test.jsonl")
    copy.write_text(json.dumps(rows[0]) + "\n")
    words = ["eval", "--suite", "math", "--ckpt", "tiny-student", "benchmark.math=test.jsonl", "budget={tokens: 8}"]
    assert pipo(*words, "engine.threads=1")[0] == 0
    folder = Path("outputs/eval-math-tiny-student/eval")
    copy.write_text(json.dumps({**rows[0], "answer": "2"}) + "\n")
    assert pipo("eval", "--regrade", str(folder))[0] == 0
    regraded = read_json(folder / "results.json")
    code, out, _ = pipo(*words, "engine.threads=1")
    assert (code, out.splitlines()[-1]) == (0, f"unchanged: {folder}")
    assert read_json(folder / "results.json") == regraded
    # Another wording is another question: it is not graded by an answer to the old one.
    copy.write_text(json.dumps({**rows[0], "problem": "What is 1+2?"}) + "\n")
    code, _, err = pipo("eval", "--regrade", str(folder))
    assert code == 3
    assert "were given to other questions than are asked now" in err
