r"""The math suite on made-up questions in the form of its benchmark: rows with problem, answer and id."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.answers import read_index
from pipo_core.engine import Completion, Request
from pipo_core.errors import MissingInputError, RecipeError
from pipo_core.evaluate.runner import run_eval
from pipo_core.evaluate.suites import SUITES
from pipo_core.evaluate.suites.math import MathSuite
from pipo_core.grade import MathGrader
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import find_recipe
from pipo_core.recipes.methods import Decoding
from tests.canned_engine import CannedEngine

ARMS = [{"name": "a", "method": "regular", "ckpt": "x/y"}]
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [
        {"problem": f"Find $2^{{{n}}} + {n}$ — with $\\theta = 60^\\circ$.", "answer": str(2**n + n), "id": str(n)}
        for n in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    return path


def recipe(path: Path, **settings: Any) -> EvalRecipe:
    values = {"suite": "math", "benchmark": str(path), "budget": {"slots": 8}, "arms": ARMS}
    return EvalRecipe.model_validate({**values, **settings})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", rows())


def test_questions_are_asked_as_the_authors_ask_them_and_the_last_box_counts(file: Path) -> None:
    with SUITES["math"]() as suite:
        problems = suite.problems(recipe(file))
        assert [(p.id, p.answer) for p in problems] == [("math-0", "1"), ("math-1", "3"), ("math-2", "6")]
        assert suite.prompt(problems[1]) == [{"role": "user", "content": f"{INSTRUCTION}\n\n{rows()[1]['problem']}"}]
        texts = [
            r"so \boxed{3}, no: \boxed{6}.",
            r"\boxed{006}",
            r"\boxed{\frac{12}{2}}",
            r"\boxed{3}",
            "6",
            r"\boxed{6",
        ]
        assert [suite.judge(text, problems[2].answer) for text in texts] == [True, True, True, False, False, False]


def test_a_count_takes_the_first_ones(file: Path) -> None:
    with SUITES["math"]() as suite:
        assert suite.problems(recipe(file, problems={"count": 2})) == suite.problems(recipe(file))[:2]


def test_whole_numbers_need_no_quotes(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.jsonl", [{"problem": "?", "answer": 0, "id": 7}, {"problem": "?", "answer": " 5 ", "id": 8}]
    )
    with SUITES["math"]() as suite:
        assert [(p.id, p.answer) for p in suite.problems(recipe(file))] == [("math-7", "0"), ("math-8", "5")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": None}, "jsonl:2 has no problem"),
        ({"problem": " \n"}, "jsonl:2 has no problem"),
        ({"problem": ["a"]}, "jsonl:2 has no problem"),
        ({"answer": None}, "jsonl:2 has no answer"),
        ({"answer": ""}, "jsonl:2 has no answer"),
        ({"answer": True}, "jsonl:2 has no answer"),
        ({"answer": 1.5}, "jsonl:2 has no answer"),
        ({"answer": {"value": 3}}, "jsonl:2 has no answer"),
        ({"answer": "1" * 5_000}, "jsonl:2: an answer of 5,000 characters cannot be graded"),
        ({"id": None}, "jsonl:2 has no id"),
        ({"id": "2"}, "two problems have the same id"),
    ],
)
def test_a_row_that_is_not_a_problem_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = rows()
    content[1] |= change
    for broken in (content, [row if row is not content[1] else _without_none(row) for row in content]):
        with SUITES["math"]() as suite, pytest.raises(MissingInputError, match=words):
            suite.problems(recipe(write(tmp_path / "test.jsonl", broken)))


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no problems"),
        ("\n\n", "holds no problems"),
        ("[1, 2]\n" + json.dumps(rows()[0]) + "\n", ":1: not a JSON object"),
        ("\n".join(map(json.dumps, rows()))[:-9], "jsonl:3: not JSON, or a line that was cut off"),
        ("\n".join(map(json.dumps, rows())), "holds 3 problems, and the recipe asks for 30"),
    ],
)
def test_a_file_that_is_not_the_whole_benchmark_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "test.jsonl"
    file.write_text(text)
    with SUITES["math"]() as suite, pytest.raises(MissingInputError, match=words):
        suite.problems(recipe(file, problems={"count": 30}))


def test_a_suite_and_its_benchmark_must_fit(tmp_path: Path) -> None:
    file = tmp_path / "eval.yaml"
    head = "kind: eval\nbudget: {slots: 8}\narms: [{name: a, method: regular, ckpt: x/y}]\n"
    for lines, words in [
        ("suite: math\n", "benchmark: suite math needs its problems: benchmark=aime25"),
        ("suite: tiny\nbenchmark: aime25\n", "eval.yaml:5:12 benchmark: suite tiny generates its problems; remove it"),
        ("suite: math\nbenchmark: qwen3.5-4b\n", "is a model in the catalog; a benchmark is needed here"),
        ("suite: math\nbenchmark: aime52\n", "did you mean 'aime25'"),
        ("suite: math\nbenchmark: aime25\nproblems: {seed: 3}\n", "eval.yaml:6:18 problems.seed: .* no seed applies"),
        ("suite: mat\nbenchmark: aime25\n", "did you mean 'math'"),
    ]:
        file.write_text(head + lines)
        with pytest.raises(RecipeError, match=words):
            load_recipe(file)
    file.write_text(head + "suite: math\nbenchmark: aime25\n")
    assert load_recipe(file).kind == "eval"


def test_the_shipped_recipe_has_the_papers_values() -> None:
    shipped = load_recipe(find_recipe("math/eval"))
    assert isinstance(shipped, EvalRecipe)
    sampling = shipped.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.presence_penalty) == (1.0, 0.95, 20, 1.5)
    assert (sampling.frequency_penalty, sampling.repetition_penalty) == (0, 1)
    assert (shipped.budget.tokens, shipped.budget.slots, shipped.samples) == (32768, 32768, 4)
    assert (shipped.suite, shipped.benchmark, shipped.problems.count) == ("math", "aime25", 30)
    assert [arm.decodings() for arm in shipped.arms] == [[Decoding("regular")], [Decoding("pipo", tau=0.95)]]


class HostileEngine(CannedEngine):
    """Answers with the right box for sample 0, and with a box that cannot be evaluated for sample 1."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in list(requests):
            name, _, sample = request.id.partition("#")
            right = dict(zip(("math-0", "math-1", "math-2"), ("1", "3", "6"), strict=True))[name]
            content = right if sample == "0" else "9^{9^{9^{9}}}"
            yield Completion(
                request.id,
                text=f"{'x' * 100_000} \\boxed{{{content}}}",
                tokens=1,
                slots=1,
                drafts=0,
                kept=0,
                slot_token_counts=[1],
                finish_reason="stop",
            )


def test_an_answer_that_cannot_be_graded_in_time_is_wrong_and_reported(
    file: Path, tmp_path: Path, checkpoint: Callable[[str], str], listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def impatient() -> Any:
        with MathGrader(deadline=0.3) as grader:
            yield MathSuite(grader)

    monkeypatch.setitem(SUITES, "math", impatient)
    arms = [{"name": "a", "method": "regular", "ckpt": checkpoint("a")}]
    asked = recipe(file, arms=arms, samples=2, problems={"count": 1})
    results = run_eval(asked, tmp_path / "out", reporter=listener, open_engine=lambda *_: HostileEngine())
    assert results["arms"][0]["budgets"]["slots"]["avg"]["value"] == 0.5
    answers = read_index(tmp_path / "out" / "answers" / "a.jsonl").values()
    verdicts = {(answer.sample, answer.correct, answer.undecided) for answer in answers}
    assert verdicts == {(0, True, False), (1, False, True)}
    assert listener.warnings == ["1 answers count as wrong because their grading broke off twice"]


def test_other_questions_under_the_same_ids_are_asked_again(
    file: Path, tmp_path: Path, checkpoint: Callable[[str], str], listener: Any
) -> None:
    arms = [{"name": "a", "method": "regular", "ckpt": checkpoint("a")}]
    asked = recipe(file, arms=arms, samples=1)
    run_eval(asked, tmp_path / "out", open_engine=lambda *_: HostileEngine(), reporter=listener)
    assert listener.warnings == []
    write(file, [{**row, "problem": "Another question."} for row in rows()])
    run_eval(asked, tmp_path / "out", open_engine=lambda *_: HostileEngine(), reporter=listener)
    assert len(listener.warnings) == 1
    assert "3 answers belong to another prompt" in listener.warnings[0]
