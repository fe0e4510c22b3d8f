"""Suites as files: what is asked, in which words, and which answers are right."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.problems import load_problems, user_message
from pipo_core.errors import MissingInputError, RecipeError, UsageError
from pipo_core.evaluate.suites import Questions, load_questions, open_judge
from pipo_core.recipes.common import sampling_of
from pipo_core.recipes.evaluate import EvalProblems
from pipo_core.recipes.load import load_suite_file
from pipo_core.recipes.locate import shipped_suites
from pipo_core.recipes.suite import FileSource, SuiteFile
from pipo_core.recipes.suites import find_suites
from tests.evaluate.conftest import Listener
from tests.evaluate.local_copies import AIME, CODE, COPIES, GPQA, LONG, MMLU_PRO, RIGHT, WRONG, local_copy
from tests.isolation import lacks_isolation

SUITES = [name for name in shipped_suites() if name not in ("paper", "gates")]


def questions(
    suite: str,
    folder: Path,
    *,
    rows: list[dict[str, Any]] | None = None,
    profile: str | None = None,
    reporter: Any = None,
    **chosen: Any,
) -> Questions:
    (named,) = find_suites(suite)
    source = named.suite.source
    beside = named.path.parent / source.path if isinstance(source, FileSource) else None
    path = local_copy(suite, folder, rows) if suite in COPIES else beside
    return load_questions(named, path, profile, EvalProblems.model_validate(chosen), reporter or Listener())


def verdicts(suite: str, asked: Questions, answers: dict[str, str], profile: str | None = None) -> list[bool | None]:
    (named,) = find_suites(suite)
    with open_judge(named.profile(profile).grader, 1) as judge:
        return [judge(answers[problem.id], problem.answer) for problem in asked.problems]


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_asks_each_question_once_in_every_profile(suite: str, tmp_path: Path) -> None:
    (named,) = find_suites(suite)
    prints = set()
    for profile in named.suite.profiles:
        asked = questions(suite, tmp_path, profile=profile)
        assert len({problem.id for problem in asked.problems}) == len(asked.problems) > 1
        assert all(problem.question == problem.question.strip() for problem in asked.problems)
        assert not any("{{" in problem.question or "None" in problem.question for problem in asked.problems)
        prints.add(asked.fingerprint)
    assert len(prints) == 1  # the fingerprint is of the questions, whatever the words around them


@pytest.mark.parametrize("suite", [name for name in SUITES if name in RIGHT])
def test_right_answers_are_right_and_wrong_ones_wrong(suite: str, tmp_path: Path) -> None:
    asked = questions(suite, tmp_path)
    assert verdicts(suite, asked, RIGHT[suite]) == [True] * len(asked.problems)
    assert verdicts(suite, asked, WRONG[suite]) == [False] * len(asked.problems)


def test_mathematics_is_asked_as_the_authors_ask_it(tmp_path: Path) -> None:
    words = r"Please reason step by step, and put your final answer within \boxed{}."
    asked = questions("math", tmp_path)
    assert [problem.question for problem in asked.problems] == [f"{words}\n\n{row['problem']}" for row in AIME]
    assert [(problem.id, problem.answer) for problem in asked.problems] == [("0", "1"), ("1", "3"), ("2", "6")]


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """Return the order of the authors' `_format_mcq_question` (redai-infra/PIPO, pipo/eval/benchmark_loader.py)."""
    return [texts[place] for place in random.Random(seed).sample(range(4), 4)]


def test_choices_are_shuffled_as_the_authors_shuffle_them(tmp_path: Path) -> None:
    asked = questions("science", tmp_path)
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    letters = set()
    for number, (row, problem) in enumerate(zip(GPQA, asked.problems, strict=True)):
        texts = shuffled([row[name].strip() for name in names], number)
        lines = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", texts, strict=True))
        words = r"Please show your final answer within \boxed{} with only the choice letter, e.g., \boxed{A}."
        assert problem.question == f"{words}\n\n{row['Question']}\n\n{lines}"
        assert isinstance(problem.answer, dict)
        assert problem.answer["choices"] == texts
        letter = "ABCD"[texts.index(row["Correct Answer"])]
        assert problem.answer["letter"] == letter
        letters.add(letter)
        assert problem.level == "Physics"
    assert len(letters) > 1
    named = {one.id: one.answer["letter"] for one in asked.problems if isinstance(one.answer, dict)}
    right = {name: f"\\boxed{{{letter}}}" for name, letter in named.items()}
    assert verdicts("science", asked, right) == [True] * 4
    assert verdicts("science", asked, dict.fromkeys(right, r"\boxed{E}")) == [False] * 4
    last = {name: f"Answer: {letter}" for name, letter in named.items()}
    assert verdicts("science", asked, last) == [False] * 4
    assert verdicts("science", asked, last, "official") == [True] * 4


def test_long_contexts_are_the_short_ones_shuffled_by_their_place_in_the_whole_file(tmp_path: Path) -> None:
    asked = questions("long", tmp_path)
    assert [problem.id for problem in asked.problems] == ["id0", "id2"]
    for number, problem in zip((0, 2), asked.problems, strict=True):
        row = LONG[number]
        texts = shuffled([row[f"choice_{letter}"] for letter in "ABCD"], number)
        lines = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", texts, strict=True))
        text = f"Read the following text and answer the question below.\n{row['context']}\n{row['question']}\n\n{lines}"
        assert problem.question.endswith(text)
        assert isinstance(problem.answer, dict)
        right = row[f"choice_{row['answer']}"]
        assert problem.answer["letter"] == "ABCD"[texts.index(right)]


def test_mmlu_pro_keeps_the_order_and_takes_ten_letters(tmp_path: Path) -> None:
    asked = questions("mmlu-pro", tmp_path)
    assert "about math." in asked.problems[0].question
    assert "\nA. 1\nB. 2\n" in asked.problems[0].question
    answers = {
        problem.id: f"So the answer is ({letter})." for problem, letter in zip(asked.problems, "ABC", strict=True)
    }
    assert verdicts("mmlu-pro", asked, answers) == [True] * 3
    assert {problem.level for problem in asked.problems} == {"math", "law"}


def test_code_is_asked_with_or_without_a_starter(tmp_path: Path) -> None:
    stdin, function = questions("code", tmp_path).problems
    assert "Read the inputs from stdin" in stdin.question
    assert "class Solution" not in stdin.question
    assert "following starter code" in function.question
    assert "class Solution:\n    def double" in function.question
    assert isinstance(function.answer, dict)
    assert function.answer["function"] == "double"


def test_the_tiny_suite_asks_held_out_problems_as_training_does(tmp_path: Path) -> None:
    asked = questions("tiny", tmp_path, count=40, seed=3)
    problems = load_problems("tiny", "heldout", 40, 3)
    assert [(one.id, one.question, one.answer, one.level) for one in asked.problems] == [
        (one.id, user_message(one), one.answer, one.level) for one in problems
    ]
    answers = {one.id: f"… \\boxed{{{one.answer}}}" for one in problems}
    assert verdicts("tiny", asked, answers) == [True] * 40


def test_a_recipe_chooses_questions(tmp_path: Path) -> None:
    whole = questions("math", tmp_path)
    assert questions("math", tmp_path, count=2).problems == whole.problems[:2]
    assert questions("math", tmp_path, count=99).problems == whole.problems
    chosen = questions("math", tmp_path, ids=["2", "0"])
    assert [problem.id for problem in chosen.problems] == ["2", "0"]
    assert chosen.fingerprint != whole.fingerprint
    with pytest.raises(UsageError, match="suite math has no question '3'"):
        questions("math", tmp_path, ids=["3"])
    with pytest.raises(UsageError, match=r"problems\.seed applies to nothing"):
        questions("math", tmp_path, seed=1)


def test_a_copy_of_another_length_is_taken_with_a_warning(tmp_path: Path, listener: Any) -> None:
    questions("math", tmp_path, reporter=listener)
    assert len(listener.warnings) == 1
    assert "holds 3 questions, and the suite says 30" in listener.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": None}, r"jsonl:2: the question is not a text"),
        ({"problem": " \n"}, r"jsonl:2: the question is not a text"),
        ({"problem": ["a"]}, r"jsonl:2: the question is not a text"),
        ({"answer": None}, r"jsonl:2: the answer is neither a text nor a number"),
        ({"answer": ""}, r"jsonl:2: the answer is neither"),
        ({"answer": True}, r"jsonl:2: the answer is neither"),
        ({"answer": float("nan")}, r"jsonl:2: the answer is neither"),
        ({"answer": {"value": 3}}, r"jsonl:2: the answer is neither"),
        ({"problem": "half \ud800"}, r"jsonl:2: half of a character"),
        ({"answer": "1" * 5_000}, r"jsonl:2: an answer of 5,000 characters cannot be graded"),
        ({"id": None}, r"jsonl:2: the question has no name"),
        ({"id": "2"}, "two questions are called 2"),
    ],
)
def test_a_row_that_is_not_a_question_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(MissingInputError, match=words):
        questions("math", tmp_path, rows=[row | (change if number == 1 else {}) for number, row in enumerate(AIME)])


def test_a_column_that_is_not_there_is_named_with_its_nearest(tmp_path: Path) -> None:
    rows = [{("Problem" if key == "problem" else key): value for key, value in row.items()} for row in AIME]
    with pytest.raises(MissingInputError, match=r"jsonl:1: there is no column 'problem' \(did you mean 'Problem'\?\)"):
        questions("math", tmp_path, rows=rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no questions"),
        ("[1, 2]\n", ":1: not a JSON object"),
        (
            '{"problem": "a", "answer": "1", "id": "0"}\n{"problem": "b", "ans',
            r"jsonl:2: not JSON, or a line that was cut",
        ),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(tmp_path: Path, listener: Any, text: str, words: str) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(text)
    (named,) = find_suites("math")
    with pytest.raises(MissingInputError, match=words):
        load_questions(named, path, None, EvalProblems(), listener)


def test_groups_name_suites_and_names_are_guessed() -> None:
    assert [one.name for one in find_suites("paper")] == ["math", "science", "code", "long"]
    assert [one.name for one in find_suites("gates")] == ["mmlu-pro", "ifeval", "science"]
    with pytest.raises(MissingInputError, match=r"mth: no such suite \(did you mean 'math'"):
        find_suites("mth")
    (named,) = find_suites("math")
    with pytest.raises(
        UsageError, match=r"no profile 'oficial' \(did you mean 'official'\?\); profiles: paper, official"
    ):
        named.profile("oficial")


def test_shipped_suites_have_the_papers_settings() -> None:
    for named in find_suites("paper"):
        sampling = sampling_of(named.suite.sampling)
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.presence_penalty) == (1.0, 0.95, 20, 1.5)
        assert (named.suite.samples, named.suite.budget.slots) == (4, 32768)
        assert next(iter(named.suite.profiles)) == "paper"
    for name in SUITES:
        if name not in ("tiny", "tiny-code", "tiny-letters"):  # made by pipo
            (named,) = find_suites(name)
            assert named.suite.citation
            assert named.suite.licence


OWN = """\
kind: suite
title: Mine
source: {kind: file, path: mine.jsonl}
columns: {question: q, answer: a, hint: extra.hint}
profiles:
  own:
    prompt: "{{ question }} ({{ hint }})"
    grader: {kind: boxed}
budget: {tokens: 16}
"""


def own(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "own.yaml"
    path.write_text(OWN.replace(old, new) if old else OWN)
    (folder / "mine.jsonl").write_text('{"q": "1 + 1?", "a": 2, "extra": {"hint": "even"}}\n')
    return path


def test_a_suite_of_ones_own_needs_no_python(tmp_path: Path, listener: Any) -> None:
    (named,) = find_suites(str(own(tmp_path)))
    asked = load_questions(named, tmp_path / "mine.jsonl", None, EvalProblems(), listener)
    assert [(one.id, one.question, one.answer) for one in asked.problems] == [("0", "1 + 1? (even)", "2")]
    assert named.name == "own"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("answer: a,", "anwer: a,", r"own\.yaml:4:10 columns: grader boxed needs a column for answer"),
        ("{{ hint }}", "{{ hnt }}", r"own\.yaml:7:13 profiles\.own\.prompt: \{\{ hnt \}\} names no column"),
        ("{{ hint }}", "", r"own\.yaml:4:\d+ columns\.hint: nothing reads this column"),
        ("{{ hint }}", "{{ hint", r"own\.yaml:7:13 profiles\.own\.prompt: not a Jinja template"),
        ("kind: boxed", "kind: letter", r"own\.yaml:8:\d+ profiles\.own\.grader: grader letter needs choices"),
        ("kind: boxed", "kind: box", r"own\.yaml:8:\d+ .*kind must be one of boxed, letter, instructions, code"),
        ("title", "titel", r"own\.yaml:2:1 titel: unknown key \(did you mean 'title'"),
        ("kind: file", "kind: flie", r"own\.yaml:3:\d+ .*kind must be one of hub, web, file, generated"),
        ("kind: suite", "kind: siute", r"own\.yaml:1:7 kind: must be one of suite, suites; got 'siute' \(did you mean"),
    ],
)
def test_a_typing_error_is_told_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_suite_file(own(tmp_path, old, new))


def test_a_prompt_cannot_run_programs(tmp_path: Path, listener: Any) -> None:
    path = own(tmp_path, "{{ hint }}", "{{ hint.__class__.__mro__ }}")
    (named,) = find_suites(str(path))
    with pytest.raises(MissingInputError, match="the prompt cannot be made"):
        load_questions(named, tmp_path / "mine.jsonl", None, EvalProblems(), listener)


def test_a_group_of_ones_own(tmp_path: Path) -> None:
    own(tmp_path)
    group = tmp_path / "both.yaml"
    group.write_text("kind: suites\ntitle: both\nsuites: [own.yaml, math]\n")
    assert [one.name for one in find_suites(str(group))] == ["own", "math"]
    group.write_text("kind: suites\ntitle: both\nsuites: [paper]\n")
    with pytest.raises(UsageError, match="paper is a group"):
        find_suites(str(group))
    assert isinstance(load_suite_file(tmp_path / "own.yaml"), SuiteFile)


def test_a_suites_name_is_a_word(tmp_path: Path) -> None:
    path = own(tmp_path).rename(tmp_path / "my.v2.yaml")
    with pytest.raises(UsageError, match="a suite is named after its file, in letters, digits, - and _"):
        find_suites(str(path))


@pytest.mark.parametrize(
    ("hidden", "words"),
    [("notbase64!!", "neither JSON nor packed as LiveCodeBench packs"), ("[]", "there is no test"), ("{}", "neither")],
)
def test_tests_that_cannot_be_read_are_told_before_anything_is_asked(tmp_path: Path, hidden: str, words: str) -> None:
    row = {**CODE[0], "public_test_cases": "[]", "private_test_cases": hidden}
    with pytest.raises(MissingInputError, match=words):
        questions("code", tmp_path, rows=[row, CODE[1]])


def test_tests_that_are_values_become_json(tmp_path: Path) -> None:
    row = {**CODE[0], "public_test_cases": json.dumps([{"input": [1, 2], "output": True}])}
    asked = questions("code", tmp_path, rows=[row])
    assert isinstance(asked.problems[0].answer, dict)
    assert asked.problems[0].answer["tests"] == [{"input": "[1, 2]", "output": "true"}]


def test_numbers_are_answers_and_more_than_ten_choices_are_not(tmp_path: Path) -> None:
    rows = [{**AIME[0], "answer": 0.5}, {**AIME[1], "answer": 3.0}]
    assert [problem.answer for problem in questions("math", tmp_path, rows=rows).problems] == ["0.5", "3"]
    row = {**MMLU_PRO[0], "options": [str(number) for number in range(11)]}
    with pytest.raises(MissingInputError, match="a question has 2 to 10 choices"):
        questions("mmlu-pro", tmp_path, rows=[row])


def test_a_set_may_bring_its_own_checker(tmp_path: Path, listener: Any) -> None:
    path = own(tmp_path, "{question: q, answer: a, hint: extra.hint}", "{question: q, tests: t, checker: c}")
    text = path.read_text().replace(" ({{ hint }})", "").replace("kind: boxed", "kind: code")
    path.write_text(text)
    checker = "import sys\nprint(int(open(sys.argv[3]).read().split() in (['1', '2'], ['2', '1'])))"
    row = {"q": "Write 1 and 2 in any order.", "t": [{"input": "", "output": "1 2"}], "c": checker}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    (named,) = find_suites(str(path))
    asked = load_questions(named, tmp_path / "mine.jsonl", None, EvalProblems(), listener)
    if lacks_isolation() is None:
        for numbers, right in (("2 1", True), ("1 2", True), ("1 1", False)):
            with open_judge(named.profile(None).grader, 1) as judge:
                assert judge(f"```python\nprint('{numbers}')\n```", asked.problems[0].answer) is right
