"""Training sets: which answers they contain, and on which side of the split."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo_core.data.answers import Answer, Key, read_index
from pipo_core.data.build import IN_A_BENCHMARK, OUT_OF_RANGE, choose, is_held_out, run_build
from pipo_core.data.card import length_figures
from pipo_core.data.problems import Problem, user_message
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.recipes.build import BuildRecipe
from pipo_core.reporting import SilentReporter


class Said(SilentReporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, msg: str) -> None:
        self.warnings.append(msg)


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


def build(
    tmp_path: Path, rows: list[dict[str, Any]], benchmarks: Mapping[str, Sequence[str]] | None = None, /, **options: Any
) -> tuple[dict[str, Any], Path]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    recipe = BuildRecipe(rollouts=[str(write(tmp_path / "rollouts.jsonl", rows))], **options)
    return run_build(recipe, out, benchmarks=benchmarks), out


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
    summary, out = build(tmp_path, rows, pick="shortest")
    assert sorted(texts(out / "train.jsonl")) == ["a by 1", "b by 0"]
    assert summary["dropped"] == {"wrong": 1, "not the shortest": 1}


@pytest.mark.parametrize(("share", "kept"), [(0.0, {"a", "b"}), (0.5, {"a", "b"}), (0.6, {"a"}), (1.0, {"a"})])
def test_problems_solved_too_rarely_are_left_out(tmp_path: Path, share: float, kept: set[str]) -> None:
    rows = [row("a", 0), row("a", 1), row("b", 0), row("b", 1, end="length")]
    _, out = build(tmp_path, rows, minimum_solved=share)
    assert {text[0] for text in texts(out / "train.jsonl")} == kept


def test_the_split_is_by_question_and_the_same_in_every_build(tmp_path: Path) -> None:
    rows = [row(f"q{number:03}", sample) for number in range(400) for sample in range(2)]
    summary, out = build(tmp_path, rows, validation_share=0.25)
    train, validation = (
        {text.split()[0] for text in texts(out / name)} for name in ("train.jsonl", "validation.jsonl")
    )
    assert train & validation == set()
    assert len(train | validation) == 400
    assert len(validation) == pytest.approx(100, abs=4 * math.sqrt(400 * 0.25 * 0.75))
    assert (summary["train_rows"], summary["validation_rows"]) == (2 * len(train), 2 * len(validation))
    assert (summary["train_questions"], summary["validation_questions"]) == (len(train), len(validation))
    # Another seed, fewer questions, other ids and other blanks: nothing crosses.
    fewer = [{**item, "problem": f"x{item['problem']}", "question": f" {item['question']}\n"} for item in rows[::3]]
    build(tmp_path, fewer, validation_share=0.25, seed=9)
    for name, side in (("train.jsonl", train), ("validation.jsonl", validation)):
        asked = {item["messages"][0]["content"].split()[2].strip("?") for item in read_jsonl(out / name)}
        assert asked
        assert asked <= side


def test_the_papers_two_parts_have_every_question_once(tmp_path: Path) -> None:
    rows = [row(f"q{number:03}", 0) for number in range(300)]
    _, out = build(tmp_path, rows, hash_range=[0.0, 0.9])
    first = set(texts(out / "train.jsonl"))
    summary, out = build(tmp_path, rows, hash_range=[0.9, 1.0])
    second = set(texts(out / "train.jsonl"))
    assert first | second == {item["text"] for item in rows}
    assert first & second == set()
    assert summary["dropped"] == {OUT_OF_RANGE: len(first)}
    assert len(second) == pytest.approx(30, abs=4 * math.sqrt(300 * 0.9 * 0.1))
    # Validation is by another hash: it takes its share of either part.
    summary, _ = build(tmp_path, rows, hash_range=[0.0, 0.5], validation_share=0.5)
    assert summary["validation_rows"] == pytest.approx(75, abs=4 * math.sqrt(300 * 0.25 * 0.75))
    assert summary["train_rows"] == pytest.approx(75, abs=4 * math.sqrt(300 * 0.25 * 0.75))


def test_all_held_out_is_an_error_and_none_a_warning(tmp_path: Path) -> None:
    held = next(f"q{number}" for number in range(999) if is_held_out(f"What is q{number}?", 0.5))
    other = next(f"q{number}" for number in range(999) if not is_held_out(f"What is q{number}?", 0.5))
    with pytest.raises(PipoError, match="all 1 rows are held out") as caught:
        build(tmp_path, [row(held, 0)], validation_share=0.5)
    assert caught.value.hint
    reporter = Said()
    recipe = BuildRecipe(rollouts=[str(write(tmp_path / "rollouts.jsonl", [row(other, 0)]))], validation_share=0.5)
    assert run_build(recipe, tmp_path / "out", reporter=reporter)["validation_rows"] == 0
    assert "none of the questions" in reporter.warnings[0]


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
    assert sorted(other.splitlines()) == sorted(results[0][0].splitlines())
    assert texts(out / "train.jsonl") != sorted(texts(out / "train.jsonl"))


def test_without_a_share_no_validation_file_is_left(tmp_path: Path) -> None:
    rows = [row(f"q{number}", 0) for number in range(9)]
    _, out = build(tmp_path, rows, validation_share=0.5)
    assert (out / "validation.jsonl").exists()
    build(tmp_path, rows)
    assert not (out / "validation.jsonl").exists()
    assert {path.name for path in out.iterdir()} == {"train.jsonl", "card.md"}


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(PipoError, match="2 wrong") as caught:
        build(tmp_path, [row("a", 0, correct=False), row("a", 1, correct=False)])
    assert caught.value.hint
    with pytest.raises(PipoError, match="there is none"):
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
    rollouts=st.just(["x"]),
    pick=st.sampled_from(["all", "shortest"]),
    validation_share=st.floats(0, 0.99),
    minimum_solved=st.floats(0, 1),
    seed=st.integers(0, 9),
)


@settings(max_examples=150)
@given(ANSWERS, RECIPES)
def test_every_answer_is_kept_or_dropped_for_one_reason(answers: list[Answer], recipe: BuildRecipe) -> None:
    kept, dropped = choose(answers, recipe)
    assert len(kept) + sum(dropped.values()) == len(answers)
    assert all(answer.solved for answer in kept)
    if recipe.pick == "shortest":
        assert len({answer.problem for answer in kept}) == len(kept)


def test_answers_that_are_too_long_or_loop_are_left_out_and_counted(tmp_path: Path) -> None:
    loop = "So x = 3. Wait, let me check again. " * 60
    rows = [row("a", 0, tokens=9), row("a", 1, tokens=10), {**row("a", 2), "text": loop}, row("b", 0, tokens=11)]
    summary, out = build(tmp_path, rows, max_tokens=9, max_repetition=0.3)
    assert texts(out / "train.jsonl") == ["a by 0"]
    assert summary["dropped"] == {"longer than max_tokens": 2, "above max_repetition": 1}
    summary, _ = build(tmp_path, rows)
    assert summary["dropped"] == {}
    # A loop does not count as the shortest answer.
    rows = [{**row("a", 0, tokens=2), "text": loop}, row("a", 1, tokens=5)]
    _, out = build(tmp_path, rows, pick="shortest", max_repetition=0.3)
    assert texts(out / "train.jsonl") == ["a by 1"]


def test_questions_for_distillation_are_those_solved_often_enough(tmp_path: Path) -> None:
    rows = [row("a", 0), row("a", 1, correct=False), row("b", 0), row("b", 1, end="length"), row("b", 2, correct=False)]
    summary, out = build(tmp_path, rows, rows="questions", minimum_solved=0.5)
    assert read_jsonl(out / "train.jsonl") == [{"messages": [{"role": "user", "content": "What is a?"}]}]
    assert summary["dropped"] == {"below minimum_solved": 1}
    assert (summary["questions"], summary["kept"]) == (2, 1)
    assert "tokens" not in summary
    with pytest.raises(PipoError, match=r"no question of .* is left to train on \(2 below minimum_solved\)"):
        build(tmp_path, rows, rows="questions", minimum_solved=0.9)


def test_questions_of_a_benchmark_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [row(f"q{number}", sample) for number in range(4) for sample in range(2)]
    long = "Find the number of ordered pairs of positive integers (m, n) with m + n = 100."
    rows += [{**row("long", 0), "question": f"Solve this. {long} Thank you."}]
    benchmarks = {"one": ["WHAT is  q1?", "something else"], "two": [long, "q2?"], "three": ["else"]}
    summary, out = build(tmp_path, rows, benchmarks)
    assert {text.split()[0] for text in texts(out / "train.jsonl")} == {"q0", "q2", "q3"}
    assert summary["dropped"] == {IN_A_BENCHMARK: 3}
    assert summary["overlap"] == {
        "one": {"compared": 2, "exact": ["q1"], "contained": []},
        "two": {"compared": 2, "exact": [], "contained": ["long"]},
        "three": {"compared": 1, "exact": [], "contained": []},
    }
    card = (out / "card.md").read_text()
    assert "| one | 2 | 1 | 0 | q1 |" in card
    assert "were left out" in card
    summary, out = build(tmp_path, rows, benchmarks, drop_overlap=False)
    assert len(texts(out / "train.jsonl")) == 9
    assert summary["overlap"]["one"]["exact"] == ["q1"]
    assert "were kept" in (out / "card.md").read_text()
    assert build(tmp_path, rows)[0]["overlap"] is None
    assert "Not compared with any benchmark" in (out / "card.md").read_text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rows": "questions", "pick": "shortest"}, "pick: rows: questions have no answers"),
        ({"rows": "questions", "max_tokens": 9}, "max_tokens: rows: questions have no answers"),
        ({"rows": "questions", "max_repetition": 0.5}, "max_repetition: rows: questions have no answers"),
        ({"hash_range": [0.5, 0.5]}, "hash_range: the second value must be above"),
        ({"rollouts": []}, "rollouts: give either rollouts or worked"),
        ({"rollouts": ["a", "b", "a"]}, "rollouts.2: a is given twice"),
        ({"rollouts": [], "worked": {}, "pick": "shortest"}, "pick: worked solutions are all taken"),
        ({"rollouts": [], "worked": {}, "minimum_solved": 0.1}, "minimum_solved: worked solutions are all taken"),
        ({"rollouts": [], "worked": {}, "rows": "questions"}, "rows: worked solutions are answers"),
        (
            {"rollouts": [], "worked": {"source": "x/y", "columns": {"question": "q", "answer": "a"}}},
            "worked.columns.answer: nothing reads it.*worked.columns.solution: worked problems need",
        ),
    ],
)
def test_settings_that_nothing_reads_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BuildRecipe.model_validate({"rollouts": "x/y", **options})


def test_one_rollout_may_be_given_without_a_list() -> None:
    assert BuildRecipe.model_validate({"rollouts": "x/y"}).rollouts == ["x/y"]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=250))
def test_lengths_are_those_of_numpy(tokens: list[int]) -> None:
    figures = length_figures(tokens)
    assert figures["mean_tokens"] == pytest.approx(np.mean(tokens))
    percentiles = {f"p{percent}": np.percentile(tokens, percent, method="inverted_cdf") for percent in (5, 25, 50)}
    percentiles |= {f"p{percent}": np.percentile(tokens, percent, method="inverted_cdf") for percent in (75, 95, 99)}
    assert figures["tokens"] == {**percentiles, "max": max(tokens)}
