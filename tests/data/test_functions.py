"""The tiny world's programs: right solutions, tests that tell wrong ones apart, disjoint splits."""

import random
from collections.abc import Iterator
from itertools import islice, product

import pytest

from pipo_core.chat import load_tokenizer
from pipo_core.data.problems import Problem, gradable, load_problems, user_message
from pipo_core.data.tiny import functions
from pipo_core.data.tiny.functions import Program
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.grade import CodeGrader
from pipo_core.grade.programs import extract_program
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.problems import Problems
from tests.isolation import lacks_isolation

needs_sandbox = pytest.mark.skipif(lacks_isolation() is not None, reason="this machine cannot isolate programs")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(seconds=20.0) as shared:
        yield shared


def made(program: Program) -> Problem:
    """Return the problem of a program, as `load_problems` makes it."""
    rng = random.Random(0)
    return Problem(
        program.name,
        functions.question(program, rng),
        functions.reference(program),
        solution=functions.solution(program, rng),
    )


def fenced(body: str) -> str:
    return f"It is this.\n</think>\n\n```python\n{body}\n```"


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_expressions_are_what_the_operations_make(split: str) -> None:
    for program in islice(functions.programs(split, 3), 300):
        for x in (-9, -1, 0, 2, 55):
            value = x
            for sign, term, expression in zip(program.signs, program.terms, program.expressions, strict=True):
                value = {"+": value + term, "-": value - term, "*": value * term}[sign]
                assert eval(expression, {"x": x}) == value  # noqa: S307 - x, digits and signs of this code
            assert program.value(x) == value


def test_brackets_are_only_where_a_product_is_of_a_sum() -> None:
    assert Program(("+", "*", "-"), (3, 2, 4)).expressions == ["x + 3", "(x + 3) * 2", "(x + 3) * 2 - 4"]
    assert Program(("*", "*", "+"), (3, 2, 4)).expressions[-1] == "x * 3 * 2 + 4"
    assert Program(("*", "-", "*"), (3, 9, 5)).expressions[-1] == "(x * 3 - 9) * 5"


def test_no_training_problem_is_held_out_whatever_the_seed() -> None:
    held_out = {program.name for program in islice(functions.programs("heldout", 0), 500)}
    assert len(held_out) == 500
    for seed in range(3):
        assert held_out.isdisjoint(program.name for program in islice(functions.programs("train", seed), 3000))


def test_about_a_tenth_of_all_programs_is_held_out_and_no_program_is_lost() -> None:
    every = {
        Program(signs, terms).name
        for level in functions.LEVELS
        for signs in product("+-*", repeat=level)
        for terms in product(*(functions._TERMS[sign] for sign in signs))
    }
    found = {split: [program.name for program in functions.programs(split, 0)] for split in ("train", "heldout")}
    assert all(len(set(names)) == len(names) for names in found.values())
    assert set(found["train"]) | set(found["heldout"]) <= every
    assert sum(map(len, found.values())) > 0.95 * len(every)
    held_out = sum(Program(tuple(name[::2]), tuple(map(int, name[1::2]))).held_out for name in every) / len(every)
    assert 0.08 < held_out < 0.125


def test_the_seed_decides_problems_and_words() -> None:
    assert load_problems("tiny-code", "train", 20, 4) == load_problems("tiny-code", "train", 20, 4)
    assert load_problems("tiny-code", "train", 20, 4) != load_problems("tiny-code", "train", 20, 5)
    program = next(functions.programs("train", 0))
    assert len({functions.solution(program, random.Random(seed)) for seed in range(40)}) > 10
    levels = [program.level for program in islice(functions.programs("train", 0), 30)]
    assert all(levels.count(level) == 15 for level in functions.LEVELS)


def test_more_programs_than_there_are_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"the tiny world has \d+ heldout problems, not 5,000"):
        load_problems("tiny-code", "heldout", 5000, 0)


def test_the_tests_tell_every_two_functions_apart() -> None:
    outputs: dict[tuple[int, ...], tuple[int, int]] = {}
    for program in functions.programs("heldout", 0):
        slope = (program.value(1) - program.value(0), program.value(0))
        found = tuple(program.value(x) for x in functions._HIDDEN)
        assert outputs.setdefault(found, slope) == slope


def test_the_question_shows_the_open_test_and_no_other() -> None:
    for problem in load_problems("tiny-code", "heldout", 200, 1):
        assert isinstance(problem.answer, dict)
        shown, *hidden = problem.answer["tests"]
        assert len(hidden) == 3
        assert f"f({shown['input']}) is {shown['output']}." in user_message(problem)
        assert user_message(problem).count("f(") == 2  # f(x) and the shown one
        assert shown["input"] not in {test["input"] for test in hidden}


@needs_sandbox
def test_solutions_pass_their_own_tests_and_wrong_programs_do_not(grader: CodeGrader) -> None:
    for problem in load_problems("tiny-code", "heldout", 12, 2):
        assert isinstance(problem.answer, dict)
        assert grader.grade(problem.solution, problem.answer) is True
        program = extract_program(problem.solution)
        assert program is not None
        assert grader.grade(fenced(f"{program} + 1"), problem.answer) is False


@needs_sandbox
def test_programs_that_know_the_shown_value_alone_are_wrong(grader: CodeGrader) -> None:
    for problem in load_problems("tiny-code", "heldout", 6, 3):
        assert isinstance(problem.answer, dict)
        shown = problem.answer["tests"][0]
        hard_coded = (
            f"def f(x):\n    return {shown['output']}",
            f"def f(x):\n    return {{{shown['input']}: {shown['output']}}}[x]",
            f"def f(x):\n    return {{{shown['input']}: {shown['output']}}}.get(x, 0)",
        )
        for body in hard_coded:
            assert grader.grade(fenced(body), {**problem.answer, "tests": [shown]}) is True
            assert grader.grade(fenced(body), problem.answer) is False


@needs_sandbox
def test_the_order_of_operations_counts(grader: CodeGrader) -> None:
    problem = made(Program(("+", "*"), (3, 2)))
    assert grader.grade(fenced("def f(x):\n    return (x + 3) * 2"), problem.answer) is True
    assert grader.grade(fenced("def f(x):\n    return x + 3 * 2"), problem.answer) is False
    assert grader.grade(fenced("def f(x):\n    x += 3\n    return x + x"), problem.answer) is True
    assert grader.grade(fenced("def g(x):\n    return (x + 3) * 2"), problem.answer) is False


def test_rollouts_grade_them_as_programs_alone() -> None:
    chosen = Problems(source="tiny-code", count=3)
    assert len(gradable(chosen, "code")) == 3
    with pytest.raises(MissingInputError, match=r"tiny-code: problem .* answers are graded as mathematics"):
        gradable(chosen, "boxed")


def test_answers_fit_into_what_the_recipes_allow() -> None:
    tokenizer = load_tokenizer(bundled_model("tiny-student"))
    problems = load_problems("tiny-code", "train", 300, 0)
    assert max(len(tokenizer(problem.solution).input_ids) for problem in problems) < 192 - 32
    assert max(len(tokenizer(user_message(problem) + problem.solution).input_ids) for problem in problems) < 240
