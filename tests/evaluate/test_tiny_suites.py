"""The tiny world's suites from end to end: the bundled student, and a server that answers right every other time."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.problems import Problem
from pipo_core.data.tiny import arithmetic
from pipo_core.data.tiny.arithmetic import Chain
from pipo_core.evaluate.suites import load_questions
from pipo_core.files import read_json, read_jsonl
from pipo_core.recipes.evaluate import EvalProblems
from pipo_core.recipes.locate import recipe_folder
from pipo_core.recipes.suites import find_suites
from pipo_core.reporting import SilentReporter
from tests.cli.calls import pipo
from tests.engine.scripted_server import Answer, ScriptedServer, scripted
from tests.isolation import lacks_isolation
from tools import tiny_letters

LETTERS = recipe_folder() / "suites" / "data" / "tiny-letters.jsonl"
SMALL = ["engine.threads=1", "engine.batch=64"]
needs_sandbox = pytest.mark.skipif(lacks_isolation() is not None, reason="this machine cannot isolate programs")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(suite: str, count: int | None = None, profile: str | None = None) -> list[Problem]:
    (named,) = find_suites(suite)
    path = LETTERS if suite == "tiny-letters" else None
    return load_questions(named, path, profile, EvalProblems(count=count), SilentReporter()).problems


def accuracy(folder: str) -> float:
    (suite,) = read_json(Path(folder) / "results.json")["suites"]
    (arm,) = suite["arms"]
    return float(arm["budgets"]["tokens"]["avg"]["value"])


def test_the_letters_are_what_their_script_makes() -> None:
    assert LETTERS.read_text(encoding="utf-8") == tiny_letters.text()


def test_no_question_with_letters_can_be_in_a_training_set() -> None:
    rows = list(read_jsonl(LETTERS))
    assert len({row["id"] for row in rows}) == len(rows) == 200
    for row in rows:
        first, *others = re.findall(r"[+-]?\d+", row["id"])
        chain = Chain((int(first), *(int(term[1:]) for term in others)), tuple(term[0] for term in others))
        assert chain.held_out
        assert row["question"] in {form.format(chain.expression) for form in arithmetic._QUESTIONS}
        assert row["choices"]["ABCD".index(row["answer"])] == str(chain.answer)
        assert len(set(row["choices"])) == 4
        assert all(0 < abs(int(choice) - chain.answer) <= 3 for choice in set(row["choices"]) - {str(chain.answer)})
    shares = [sum(row["answer"] == letter for row in rows) / len(rows) for letter in "ABCD"]
    assert min(shares) > 0.15


def test_the_student_is_asked_in_the_words_of_its_training_and_others_are_shown_the_choices() -> None:
    rows = list(read_jsonl(LETTERS))
    assert [problem.question for problem in asked("tiny-letters")] == [row["question"] for row in rows]
    shown = asked("tiny-letters", profile="shown")[0].question
    assert all(f"{letter}) {text}" in shown for letter, text in zip("ABCD", rows[0]["choices"], strict=True))


def test_the_bundled_student_is_far_above_chance_with_letters() -> None:
    words = ["eval", "--suite", "tiny-letters", "--ckpt", "tiny-student", "--limit", "60", "--samples", "1"]
    code, _, err = pipo(*words, "sampling={temperature: 0}", *SMALL)
    assert code == 0, err
    # Chance is 25 %. The student's greedy accuracy is 88 % on such questions (docs/results/tiny-world.md).
    assert accuracy("outputs/eval-tiny-letters-tiny-student/eval") > 0.7


@needs_sandbox
def test_the_bundled_student_writes_no_programs_and_that_is_graded() -> None:
    words = ["eval", "--suite", "tiny-code", "--ckpt", "tiny-student", "--limit", "6", "--samples", "1"]
    code, out, err = pipo(*words, "budget={tokens: 48, slots: 48}", *SMALL)
    assert code == 0, err
    assert "tiny-code, 6 problems" in out
    folder = Path("outputs/eval-tiny-code-tiny-student/eval")
    assert accuracy(str(folder)) == 0
    verdicts = [row for row in read_jsonl(folder / "answers/tiny-code/regular.jsonl") if "correct" in row]
    assert len(verdicts) == 6


def solution(problem: Problem, *, right: bool) -> str:
    """Return an answer to a question of either suite that is right or wrong."""
    assert isinstance(problem.answer, dict)
    if "letter" in problem.answer:
        letters = "ABCD".replace(problem.answer["letter"], "")
        return rf"So it is \boxed{{{problem.answer['letter'] if right else letters[0]}}}."
    tests = problem.answer["tests"] if right else problem.answer["tests"][:1]
    table = {int(test["input"]): int(test["output"]) for test in tests}
    return f"```python\ndef f(x):\n    return {table}[x]\n```"


@pytest.mark.parametrize("suite", ["tiny-letters", pytest.param("tiny-code", marks=needs_sandbox)])
def test_a_server_that_is_right_every_other_time_scores_one_half(suite: str) -> None:
    problems = asked(suite, 10)
    answers = {problem.question: solution(problem, right=number % 2 == 0) for number, problem in enumerate(problems)}

    def post(_: str, body: Mapping[str, Any]) -> Answer:
        text = answers[body["messages"][0]["content"]]
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 12}}

    with scripted(ScriptedServer(post=post, get={"/v1/models": (200, {"data": [{"id": "m"}]})})) as server:
        words = ["eval", "--suite", suite, "--url", server.url, "--limit", "10", "--samples", "2", "--json"]
        code, out, err = pipo(*words)
    assert code == 0, err
    assert len(server.asked) == 20
    folder = json.loads(out)["folder"]
    assert accuracy(folder) == 0.5
    rows = list(read_jsonl(next((Path(folder) / "answers" / suite).glob("*.jsonl"))))
    verdicts = {(row["problem"], row["sample"]): row["correct"] for row in rows if "correct" in row}
    assert verdicts == {
        (problem.id, sample): number % 2 == 0 for number, problem in enumerate(problems) for sample in (0, 1)
    }
