from pipo_core.data.problems import load_problems, user_message
from pipo_core.evaluate.suites import SUITES
from pipo_core.recipes.evaluate import EvalRecipe


def test_the_tiny_suite_asks_held_out_problems_as_training_does_and_grades_their_answers() -> None:
    recipe = EvalRecipe.model_validate(
        {
            "suite": "tiny",
            "problems": {"count": 40, "seed": 3},
            "budget": {"tokens": 1},
            "arms": [{"name": "a", "method": "regular", "ckpt": "x/y"}],
        }
    )
    with SUITES["tiny"]() as suite:
        problems = suite.problems(recipe)
        assert problems == load_problems("tiny", "heldout", 40, 3)
        assert len({problem.id for problem in problems}) == 40
        for problem in problems:
            assert suite.prompt(problem) == [{"role": "user", "content": user_message(problem)}]
            assert isinstance(problem.answer, str)
            assert suite.judge(f"… \\boxed{{{problem.answer}}}", problem.answer)
            assert not suite.judge(f"… \\boxed{{{int(problem.answer) + 1}}}", problem.answer)
            assert suite.judge(problem.answer, problem.answer) is False
