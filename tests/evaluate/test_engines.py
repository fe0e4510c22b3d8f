"""Every suite on a copy in its real form, asked and graded from end to end on two engines."""

import itertools
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.answers import AnswerLog
from pipo_core.engine.opening import Engines
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.evaluate.runner import answers_path, run_eval, run_regrade
from pipo_core.evaluate.suites import load_questions
from pipo_core.evaluate.table import tables
from pipo_core.recipes.evaluate import EvalProblems, EvalRecipe
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.suites import find_suites
from pipo_core.tables import markdown
from tests.engine.scripted_server import Answer, ScriptedServer, scripted
from tests.evaluate.conftest import Listener
from tests.evaluate.local_copies import COPIES, RIGHT, WRONG, local_copy
from tests.evaluate.timeless import timeless

MODELS: Answer = (200, {"data": [{"id": "m"}]})


def chat(text: str, reason: str = "stop") -> Answer:
    """Return a whole answer of OpenAI's chats."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    return 200, {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 5}}


def right_answers(suite: str, path: Path) -> dict[str, tuple[str, str]]:
    """Return a right and a wrong answer by the prompt that asks for it."""
    (named,) = find_suites(suite)
    found = {}
    for problem in load_questions(named, path, None, EvalProblems(), Listener()).problems:
        if isinstance(problem.answer, dict) and "letter" in problem.answer:
            letters = problem.answer["letter"], "ABCD"["ABCD".find(problem.answer["letter"]) - 1]
            form = r"\boxed{%s}" if suite != "mmlu-pro" else "So the answer is (%s)."
            found[problem.question] = (form % letters[0], form % letters[1])
        else:
            kind = "math" if suite == "aime26" else suite
            found[problem.question] = (RIGHT[kind][problem.id], WRONG[kind][problem.id])
    return found


def recipe(suite: str, path: Path, arms: list[dict[str, Any]], **settings: Any) -> EvalRecipe:
    values = {"suite": suite, "benchmark": {suite: str(path)}, "arms": arms, "samples": 2, "budget": {"tokens": 6}}
    return EvalRecipe.model_validate({**values, **settings})


@pytest.mark.parametrize("suite", COPIES)
def test_every_suite_runs_on_the_torch_engine_and_on_a_server_of_another_model(suite: str, tmp_path: Path) -> None:
    path = local_copy(suite, tmp_path / "copy")
    answers = right_answers(suite, path)
    first, times, lock = next(iter(answers)), itertools.count(), threading.Lock()

    def answer(_: str, body: Mapping[str, Any]) -> Answer:
        """Answer the first question wrongly once, everything else rightly."""
        prompt = body["messages"][0]["content"]
        right, wrong = answers[prompt]
        with lock:
            return chat(wrong if prompt == first and next(times) == 0 else right)

    with scripted(ScriptedServer(post=answer, get={"/v1/models": MODELS})) as server:
        arms: list[dict[str, Any]] = [
            {"name": "torch", "method": "regular", "ckpt": "tiny-student"},
            {"name": "other", "method": "regular", "engine": {"kind": "remote", "urls": [server.url]}},
        ]
        asked = recipe(suite, path, arms, baseline="torch", engine={"threads": 1})
        asked = EvalRecipe.model_validate(_with_paths(asked))
        results = run_eval(asked, tmp_path, open_engine=Engines().open)
    (found,) = results["suites"]
    torch_arm, other = (arm["budgets"]["tokens"] for arm in found["arms"])
    questions = found["problems"]
    assert other["avg"]["value"] == pytest.approx((2 * questions - 1) / (2 * questions))
    assert other["pass"]["2"]["value"] == 1
    assert (other["tokens_per_slot"], other["drafts_kept"]) == (None, None)
    assert other["cost"]["answer"]["tokens"] == 5
    assert (other["cost"]["answer"]["steps"], other["cost"]["answer"]["bytes"]) == (None, None)
    assert torch_arm["avg"]["value"] == 0  # six tokens are no answer
    assert torch_arm["cost"]["right"] == {"tokens": None, "steps": None, "seconds": None, "bytes": None}
    assert "slots" not in found["budget"]  # not every engine counts steps
    shown = "\n".join(markdown(table) for table in tables(results))
    assert "| other |" in shown


def _with_paths(asked: EvalRecipe) -> dict[str, Any]:
    """Return a recipe with the bundled model's path in place of its name, as a stage does."""
    return dict(json.loads(asked.model_dump_json().replace("tiny-student", str(bundled_model("tiny-student")))))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"problem": f"What is {n}?", "answer": str(n), "id": str(n)} for n in range(30)]
    return local_copy("math", tmp_path / "copy", rows)


def boxed(_: str, body: Mapping[str, Any]) -> Answer:
    number = body["messages"][0]["content"].removesuffix("?").split()[-1]
    return chat(f"\\boxed{{{number}}}")


def remote(url: str, **settings: Any) -> list[dict[str, Any]]:
    engine = {"kind": "remote", "urls": [url], "concurrency": 2, **settings}
    return [{"name": "served", "method": "regular", "engine": engine}]


def test_a_server_that_dies_stops_the_run_with_one_line_and_it_goes_on_later(questions: Path, tmp_path: Path) -> None:
    with scripted(ScriptedServer(post=boxed, get={"/v1/models": MODELS})) as server:
        whole = run_eval(recipe("math", questions, remote(server.url)), tmp_path / "whole")
    alive, count = threading.Event(), itertools.count()
    alive.set()

    def mortal(path: str, body: Mapping[str, Any]) -> Answer:
        if next(count) == 20:
            alive.clear()
        return boxed(path, body) if alive.is_set() else None

    out = tmp_path / "broken"
    with scripted(ScriptedServer(post=mortal, get={"/v1/models": MODELS})) as server:
        asked = recipe("math", questions, remote(server.url, patience_s=0.5))
        with pytest.raises(PipoError, match=r"no answer to \d+ of 60 requests.*no server has answered") as caught:
            run_eval(asked, out)
        assert "\n" not in str(caught.value)
        with AnswerLog(answers_path(out, "math", "served")) as log:
            kept = len(log.answers)
        assert 18 <= kept <= 20
        alive.set()
        before = len(server.asked)
        assert timeless(run_eval(asked, out)) == timeless(whole)
        assert len(server.asked) - before == 60 - kept


def test_a_question_that_a_server_refuses_is_wrong_and_listed(questions: Path, tmp_path: Path) -> None:
    def picky(path: str, body: Mapping[str, Any]) -> Answer:
        if "What is 7?" in body["messages"][0]["content"]:
            return 400, {"error": {"message": "the prompt is too long"}}
        return boxed(path, body)

    told = Listener()
    with scripted(ScriptedServer(post=picky, get={"/v1/models": MODELS})) as server:
        results = run_eval(recipe("math", questions, remote(server.url)), tmp_path / "out", reporter=told)
    (arm,) = results["suites"][0]["arms"]
    assert arm["budgets"]["tokens"]["avg"]["value"] == pytest.approx(29 / 30)
    assert arm["failed"]["answers"] == 2
    assert [(one["problem"], one["sample"]) for one in arm["failed"]["first"]] == [("7", 0), ("7", 1)]
    assert "too long" in arm["failed"]["first"][0]["error"]
    assert any("2 answers failed and count as wrong" in warning for warning in told.warnings)


def test_if_every_question_is_refused_the_settings_are_wrong_and_nothing_is_graded(
    questions: Path, tmp_path: Path
) -> None:
    refuse: Callable[..., Answer] = lambda *_: (400, {"error": {"message": "no such field"}})  # noqa: E731
    with (
        scripted(ScriptedServer(post=refuse, get={"/v1/models": MODELS})) as server,
        pytest.raises(PipoError, match=r"no answer to 60 of 60 requests.*no such field"),
    ):
        run_eval(recipe("math", questions, remote(server.url)), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_question_that_can_never_fit_is_wrong_and_the_others_are_asked(tmp_path: Path) -> None:
    rows = [
        {"problem": "What is 1 + 1?", "answer": "2", "id": "short"},
        {"problem": "What is 1 + 1? " * 3000, "answer": "2", "id": "long"},
    ]
    path = local_copy("math", tmp_path / "copy", rows)
    asked = recipe("math", path, [{"name": "torch", "method": "regular", "ckpt": "tiny-student"}])
    values = _with_paths(asked)
    values["engine"] = {"threads": 1, "max_length": 256}
    results = run_eval(EvalRecipe.model_validate(values), tmp_path / "out")
    (arm,) = results["suites"][0]["arms"]
    assert {one["problem"] for one in arm["failed"]["first"]} == {"long"}
    assert arm["failed"]["answers"] == 2
    assert arm["budgets"]["tokens"]["cost"]["cut"] == 4


def test_what_was_lost_on_the_way_is_asked_again(questions: Path, tmp_path: Path) -> None:
    """A server that answers now and then 503 loses nothing."""
    count = itertools.count()

    def flaky(path: str, body: Mapping[str, Any]) -> Answer:
        return (503, {"error": "busy"}) if next(count) % 7 == 3 else boxed(path, body)

    with scripted(ScriptedServer(post=flaky, get={"/v1/models": MODELS})) as server:
        results = run_eval(recipe("math", questions, remote(server.url)), tmp_path / "out")
    (arm,) = results["suites"][0]["arms"]
    assert arm["budgets"]["tokens"]["avg"]["value"] == 1
    assert arm["failed"]["answers"] == 0


def test_two_servers_share_the_questions(questions: Path, tmp_path: Path) -> None:
    with (
        scripted(ScriptedServer(post=boxed, get={"/v1/models": MODELS})) as first,
        scripted(ScriptedServer(post=boxed, get={"/v1/models": MODELS})) as second,
    ):
        arms = remote(first.url)
        arms[0]["engine"]["urls"].append(second.url)
        results = run_eval(recipe("math", questions, arms), tmp_path / "out")
        assert results["suites"][0]["arms"][0]["budgets"]["tokens"]["avg"]["value"] == 1
        assert len(first.asked) + len(second.asked) == 60
        assert min(len(first.asked), len(second.asked)) > 10


@pytest.mark.parametrize(
    "broken", [(401, {"error": "the key has expired"}), (404, {}), (200, "<html>maintenance</html>"), (200, {"x": 1})]
)
def test_a_server_that_breaks_down_half_way_makes_no_answer_wrong(
    questions: Path, tmp_path: Path, broken: Answer
) -> None:
    count = itertools.count()

    def breaking(path: str, body: Mapping[str, Any]) -> Answer:
        return boxed(path, body) if next(count) < 20 else broken

    with scripted(ScriptedServer(post=breaking, get={"/v1/models": MODELS})) as server:
        asked = recipe("math", questions, remote(server.url))
        with pytest.raises(PipoError, match=r"no answer to \d+ of 60 requests"):
            run_eval(asked, tmp_path / "out")
    with AnswerLog(answers_path(tmp_path / "out", "math", "served")) as log:
        assert 0 < len(log.answers) <= 20
        assert all(answer.finished for answer in log.answers.values())


def test_verdicts_of_another_reference_are_made_anew(questions: Path, tmp_path: Path) -> None:
    with scripted(ScriptedServer(post=boxed, get={"/v1/models": MODELS})) as server:
        asked = recipe("math", questions, remote(server.url))
        run_eval(asked, tmp_path / "out")
        asked_once = len(server.asked)
        questions.write_text(questions.read_text().replace('"answer": "7"', '"answer": "8"'))
        results = run_eval(asked, tmp_path / "out")
        assert len(server.asked) == asked_once  # the same questions: only the verdicts are made anew
    (arm,) = results["suites"][0]["arms"]
    assert arm["budgets"]["tokens"]["avg"]["value"] == pytest.approx(29 / 30)


def test_answers_are_not_graded_as_those_to_other_questions(questions: Path, tmp_path: Path) -> None:
    with scripted(ScriptedServer(post=boxed, get={"/v1/models": MODELS})) as server:
        asked = recipe("math", questions, remote(server.url))
        run_eval(asked, tmp_path / "out")
    before = answers_path(tmp_path / "out", "math", "served").read_bytes()
    questions.write_text(questions.read_text().replace("What is 7?", "What is seven?"))
    with pytest.raises(MissingInputError, match=r"2 answers, such as 7#0, were given to other questions"):
        run_regrade(asked, tmp_path / "out")
    assert answers_path(tmp_path / "out", "math", "served").read_bytes() == before
