import pickle

import pytest

from pipo_core.errors import (
    CheckpointError,
    Interrupted,
    MachineError,
    MissingInputError,
    PipoError,
    RecipeError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (PipoError, 1),
        (UsageError, 2),
        (MissingInputError, 3),
        (CheckpointError, 3),
        (MachineError, 4),
        (Interrupted, 130),
    ],
)
def test_exit_codes_are_the_documented_ones(kind: type[PipoError], code: int) -> None:
    error = kind("what", hint="do this")
    assert (error.exit_code, str(error), error.hint) == (code, "what", "do this")


def test_recipe_error_shows_every_problem_and_survives_another_process() -> None:
    error = RecipeError(["a.yaml:1:1 x: wrong", "a.yaml:2:1 y: wrong"], name="a.yaml", hint="look")
    assert error.exit_code == 2
    assert str(error).splitlines() == ["a.yaml: 2 problems", "  a.yaml:1:1 x: wrong", "  a.yaml:2:1 y: wrong"]
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.problems, copy.hint, str(copy)) == (error.problems, "look", str(error))
