"""Rollouts: the files that a run leaves, however it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data import problems as problems_file
from pipo_core.data.answers import AnswerLog, read_index
from pipo_core.data.build import run_build
from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.data.rollouts import run_rollout
from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.engine import request_seed
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.methods import Decoding, MethodName
from pipo_core.recipes.rollout import RolloutRecipe
from tests.data.fake_engine import FakeEngine

COUNT, SAMPLES = 5, 3


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of a checkpoint folder that rollouts read themselves: the tokenizer."""
    folder = tmp_path_factory.mktemp("teacher")
    train_tokenizer().save_pretrained(folder)
    return folder


def recipe(teacher: Path, **settings: Any) -> RolloutRecipe:
    return RolloutRecipe.model_validate(
        {
            "model": str(teacher),
            "problems": {"count": COUNT},
            "samples": SAMPLES,
            "budget": {"tokens": 50},
            "seed": 4,
            **settings,
        }
    )


def even(text: str, answer: object) -> bool:
    return int(text[-1]) % 2 == 0 if text[-1].isdigit() else False


@pytest.fixture
def roll(tmp_path: Path, teacher: Path) -> Callable[..., dict[str, Any]]:
    def run(engine: FakeEngine, out: Path = tmp_path, /, **settings: Any) -> dict[str, Any]:
        out.mkdir(exist_ok=True)
        return run_rollout(recipe(teacher, **settings), out, judge=even, open_engine=engine.open)

    return run


def keys(path: Path) -> list[tuple[str, int]]:
    return list(read_index(path / "rollouts.jsonl"))


def _lines(folder: Path) -> list[str]:
    """Return what is in a file of rollouts but for the times, in an order that does not depend on these."""
    times = ("session", "at_s")
    rows = read_jsonl(folder / "rollouts.jsonl")
    return sorted(str({key: value for key, value in row.items() if key not in times}) for row in rows)


def test_every_problem_is_answered_and_graded(tmp_path: Path, roll: Callable[..., dict[str, Any]]) -> None:
    engine = FakeEngine()
    summary = roll(engine)
    problems = load_problems("tiny", "train", COUNT, 0)
    assert sorted(keys(tmp_path)) == sorted((p.id, s) for p in problems for s in range(SAMPLES))
    with AnswerLog(tmp_path / "rollouts.jsonl") as log:
        rows = [log.row(key) for key in log.answers]
    by_id = {problem.id: problem for problem in problems}
    for row in rows:
        problem = by_id[row["problem"]]
        assert (row["question"], row["answer"]) == (problem.question, problem.answer)
        assert row["text"] == str(request_seed("rollout", 4, problem.id, row["sample"]))
        assert row["correct"] == (row["finish_reason"] == "stop" and even(row["text"], ""))
        assert row["tokens"] == 3
    solved = [row for row in rows if row["correct"] and row["finish_reason"] == "stop"]
    assert summary["answers"] == COUNT * SAMPLES
    assert summary["solved"] == len(solved) / len(rows)
    assert summary["problems_solved"] == len({row["problem"] for row in solved})
    [request, *_] = engine.asked
    assert request.messages == ({"role": "user", "content": problems[0].question},)
    assert (request.max_tokens, request.max_slots, request.stop_ids) == (50, None, None)
    assert (request.sampling.temperature, request.sampling.presence_penalty) == (1.0, 1.5)


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_stopped_run_goes_on_to_the_same_answers(
    tmp_path: Path, roll: Callable[..., dict[str, Any]], stop: int
) -> None:
    whole = roll(FakeEngine(), tmp_path / "whole")
    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        roll(FakeEngine(stop_after=stop, error=KeyboardInterrupt()), out)
    before = (out / "rollouts.jsonl").read_bytes()
    assert before.count(b"\n") == stop
    rest = FakeEngine()
    assert roll(rest, out) == whole
    assert len(rest.asked) == COUNT * SAMPLES - stop
    assert (out / "rollouts.jsonl").read_bytes().startswith(before)
    assert _lines(out) == _lines(tmp_path / "whole")


def test_half_a_line_of_a_killed_run_is_generated_again(tmp_path: Path, roll: Callable[..., dict[str, Any]]) -> None:
    first = roll(FakeEngine())
    path = tmp_path / "rollouts.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    for lines, asked in ((COUNT * SAMPLES, 1), (2 * COUNT * SAMPLES, 0)):  # the last answer, the last verdict
        path.write_bytes(b"".join(whole[:lines])[:-20])
        engine = FakeEngine()
        assert roll(engine) == first
        assert len(engine.asked) == asked
        assert len(keys(tmp_path)) == COUNT * SAMPLES


def test_a_finished_run_loads_no_model(roll: Callable[..., dict[str, Any]]) -> None:
    first = roll(FakeEngine())
    engine = FakeEngine()
    assert roll(engine) == first
    assert engine.opened == []


def test_more_samples_are_added_to_earlier_ones(roll: Callable[..., dict[str, Any]]) -> None:
    roll(FakeEngine())
    engine = FakeEngine()
    assert roll(engine, samples=SAMPLES + 1)["answers"] == COUNT * (SAMPLES + 1)
    assert len(engine.asked) == COUNT


def test_what_a_broken_line_held_is_asked_again(tmp_path: Path, roll: Callable[..., dict[str, Any]]) -> None:
    roll(FakeEngine())
    path = tmp_path / "rollouts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{nonsense\n", *lines[3:]]))
    again = FakeEngine()
    roll(again)
    assert [request.id for request in again.asked] == [json.loads(lines[2])["id"]]
    assert len(keys(tmp_path)) == COUNT * SAMPLES


def test_lost_answers_are_an_error_and_the_others_are_kept(tmp_path: Path, roll: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(PipoError, match="no answer to 13 of 15"):
        roll(FakeEngine(stop_after=2))
    assert len(keys(tmp_path)) == 2


def test_text_that_utf8_cannot_hold_survives(tmp_path: Path, roll: Callable[..., dict[str, Any]]) -> None:
    roll(FakeEngine(words=" café \ud800"))
    rows = read_jsonl(tmp_path / "rollouts.jsonl")[: COUNT * SAMPLES]
    assert all(row["text"].endswith(" café \ud800") for row in rows)


@pytest.mark.parametrize("method", ["regular", "pipo"])
def test_the_engine_is_opened_for_the_method(
    teacher: Path, roll: Callable[..., dict[str, Any]], method: MethodName
) -> None:
    engine = FakeEngine()
    roll(engine, method=method, engine={"batch": 2})
    [(ckpt, decoding, settings)] = engine.opened
    assert (ckpt, decoding, settings.batch) == (teacher, Decoding(method), 2)


def test_an_instruction_beside_the_question_reaches_the_prompt_and_the_training_row(
    tmp_path: Path, roll: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("a", "What is 1 + 1?", "2", instruction="Answer in one word.")
    monkeypatch.setattr(problems_file, "load_problems", lambda *_, **__: [problem])
    engine = FakeEngine()
    roll(engine, samples=8)
    assert engine.asked[0].messages[0]["content"] == user_message(problem)
    out = tmp_path / "build"
    out.mkdir()
    run_build(BuildRecipe(rollouts=[str(tmp_path / "rollouts.jsonl")]), out)
    assert read_jsonl(out / "train.jsonl")[0]["messages"][0]["content"] == user_message(problem)


def test_an_answer_that_cannot_be_graded_is_refused_before_anything_is_asked(
    roll: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        problems_file, "load_problems", lambda *_, **__: [Problem("a", "What is 1 + 1?", {"tests": [2]})]
    )
    engine = FakeEngine()
    with pytest.raises(MissingInputError, match="problem a: answers are graded as mathematics"):
        roll(engine)
    assert engine.asked == []


def test_seeds_differ_and_do_not_depend_on_the_process() -> None:
    seeds = {
        request_seed("rollout", seed, problem, sample)
        for seed in range(4)
        for problem in ("a", "b", "1", "11")
        for sample in range(12)
    }
    assert len(seeds) == 4 * 4 * 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Calculated with `printf 'rollout\n0\na\n0' | sha256sum`, first 8 bytes, shifted right by one.
    assert request_seed("rollout", 0, "a", 0) == 3391299713228439055
