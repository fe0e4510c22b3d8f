"""Training sets: which answers they contain, and on which side of the split."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo_core.data.answers import Answer, Key, read_index
from pipo_core.data.build import choose, choose_held_out, run_build
from pipo_core.data.problems import Problem, user_message
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.recipes.build import BuildRecipe


def row(problem: str, sample: int, *, correct: bool = True, end: str = "stop", tokens: int = 9) -> dict[str, Any]:
    return {
        "problem": problem,
        "question": f"What is {problem}?",
        "answer": "1",
        "level": "easy",
        "sample": sample,
        "text": f"{problem} by {sample}",
        "finish_reason": end,
        "tokens": tokens,
        "correct": correct,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def build(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[dict[str, Any], Path]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    recipe = BuildRecipe(rollouts=str(write(tmp_path / "rollouts.jsonl", rows)), **options)
    return run_build(recipe, out), out


def texts(path: Path) -> list[str]:
    return [item["messages"][1]["content"].removeprefix("<think>\n") for item in read_jsonl(path)]


def test_a_row_is_the_prompt_and_the_answer_behind_the_think_prefix(tmp_path: Path) -> None:
    _, out = build(tmp_path, [row("q", 0)])
    asked = user_message(Problem(id="q", question="What is q?", answer="1", level="easy"))
    assert read_jsonl(out / "train.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": "<think>\nq by 0"},
            ]
        }
    ]


def test_only_correct_and_finished_answers_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    rows = [
        row("a", 0),
        row("a", 1, correct=False),
        row("a", 2, end="length"),
        row("a", 3, correct=False, end="length"),
        row("a", 4),
    ]
    summary, out = build(tmp_path, rows)
    assert sorted(texts(out / "train.jsonl")) == ["a by 0", "a by 4"]
    assert summary["dropped"] == {"unfinished": 2, "wrong": 1}
    assert (summary["answers"], summary["kept"], summary["train_rows"]) == (5, 2, 2)


def test_the_shortest_right_answer_of_each_problem(tmp_path: Path) -> None:
    rows = [
        row("a", 0, tokens=5),
        row("a", 1, tokens=3),
        row("a", 2, tokens=1, correct=False),
        row("b", 0, tokens=8),
    ]
    summary, out = build(tmp_path, rows, keep="shortest_correct")
    assert sorted(texts(out / "train.jsonl")) == ["a by 1", "b by 0"]
    assert summary["dropped"] == {"wrong": 1, "not the shortest": 1}


@pytest.mark.parametrize(("share", "kept"), [(0.0, {"a", "b"}), (0.5, {"a", "b"}), (0.6, {"a"}), (1.0, {"a"})])
def test_problems_solved_too_rarely_are_left_out(tmp_path: Path, share: float, kept: set[str]) -> None:
    rows = [row("a", 0), row("a", 1), row("b", 0), row("b", 1, end="length")]
    _, out = build(tmp_path, rows, minimum_solved=share)
    assert {text[0] for text in texts(out / "train.jsonl")} == kept


def test_the_split_is_by_problem(tmp_path: Path) -> None:
    rows = [row(f"q{number:02}", sample) for number in range(20) for sample in range(4)]
    summary, out = build(tmp_path, rows, validation_share=0.25)
    train, validation = (
        {text.split()[0] for text in texts(out / name)} for name in ("train.jsonl", "validation.jsonl")
    )
    assert len(train) == 15
    assert len(validation) == 5
    assert train & validation == set()
    assert (summary["train_rows"], summary["validation_rows"]) == (60, 20)
    assert (summary["train_questions"], summary["validation_questions"]) == (15, 5)


def test_what_is_written_does_not_depend_on_the_order_of_completion(tmp_path: Path) -> None:
    rows = [row(f"q{number}", sample) for number in range(9) for sample in range(3)]
    results = []
    for order in (rows, rows[::-1]):
        _, out = build(tmp_path, order, validation_share=0.3, seed=5)
        results.append([(out / name).read_bytes() for name in ("train.jsonl", "validation.jsonl")])
    assert results[0] == results[1]
    _, out = build(tmp_path, rows, validation_share=0.3, seed=6)
    other = (out / "train.jsonl").read_bytes()
    assert other != results[0][0]
    assert texts(out / "train.jsonl") != sorted(texts(out / "train.jsonl"))


def test_without_a_share_no_validation_file_is_left(tmp_path: Path) -> None:
    rows = [row("a", 0), row("b", 0)]
    _, out = build(tmp_path, rows, validation_share=0.5)
    assert (out / "validation.jsonl").exists()
    build(tmp_path, rows)
    assert not (out / "validation.jsonl").exists()
    assert {path.name for path in out.iterdir()} == {"train.jsonl"}


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(PipoError, match="2 wrong") as caught:
        build(tmp_path, [row("a", 0, correct=False), row("a", 1, correct=False)])
    assert caught.value.hint
    with pytest.raises(PipoError, match="is empty"):
        build(tmp_path, [])


def test_a_repeated_answer_counts_once(tmp_path: Path) -> None:
    summary, _ = build(tmp_path, [row("a", 0), row("a", 0), row("a", 1)])
    assert (summary["answers"], summary["kept"]) == (2, 2)


def test_broken_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rollouts.jsonl", [row("a", 0), row("b", 0)])
    path.write_bytes(path.read_bytes()[:-15])
    assert [answer.problem for answer in read_index(path)] == ["a"]
    path.write_bytes(path.read_bytes() + b"\n" + json.dumps(row("c", 0)).encode() + b"\n")
    with pytest.raises(MissingInputError, match=r"rollouts.jsonl:2"):
        list(read_index(path))
    write(path, [{"problem": "a"}])
    with pytest.raises(MissingInputError, match=r"rollouts.jsonl:1"):
        list(read_index(path))
    with pytest.raises(MissingInputError, match="cannot be read"):
        list(read_index(tmp_path / "nothing.jsonl"))


ANSWERS = st.lists(
    st.builds(
        Answer,
        key=st.builds(Key, st.sampled_from("abcdef"), st.integers(0, 30)),
        correct=st.booleans(),
        finished=st.booleans(),
        tokens=st.integers(1, 9),
        offset=st.just(0),
    ),
    unique_by=lambda answer: answer.key,
    max_size=40,
)
RECIPES = st.builds(
    BuildRecipe,
    rollouts=st.just("x"),
    keep=st.sampled_from(["correct", "shortest_correct"]),
    validation_share=st.floats(0, 0.99),
    minimum_solved=st.floats(0, 1),
    seed=st.integers(0, 9),
)


@settings(max_examples=150, deadline=None)
@given(ANSWERS, RECIPES)
def test_every_answer_is_kept_or_dropped_for_one_reason(answers: list[Answer], recipe: BuildRecipe) -> None:
    kept, dropped = choose(answers, recipe)
    assert len(kept) + sum(dropped.values()) == len(answers)
    assert all(answer.solved for answer in kept)
    if recipe.keep == "shortest_correct":
        assert len({answer.problem for answer in kept}) == len(kept)


@settings(max_examples=150, deadline=None)
@given(st.sets(st.text(max_size=3), max_size=12), RECIPES)
def test_both_sides_of_a_split_hold_a_problem(questions: set[str], recipe: BuildRecipe) -> None:
    held_out = choose_held_out(questions, recipe)
    assert held_out <= questions
    if recipe.validation_share > 0 and len(questions) > 1:
        assert 0 < len(held_out) < len(questions)
    else:
        assert held_out == set()
