"""Errors that are shown to users, each with a one-line message and, if there is one, a next step.

The exit codes are those that the command line documents: 0 done, 1 failed while running, 2 usage or recipe, 3 missing
input or download, 4 environment, 130 interrupted.
"""

from collections.abc import Sequence


class PipoError(Exception):
    """A known kind of failure: shown as one line, without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the one-line message and the hint, which is the next command or setting to try."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PipoError):
    """A command, option or value that is not valid."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that is not valid; `problems` has one line for each problem."""

    def __init__(self, problems: Sequence[str], *, name: str = "recipe", hint: str | None = None) -> None:
        """Keep the problems.

        Args:
            problems: `file:line:col key: what is wrong`, one line each.
            name: the recipe.
            hint: the next command to try.
        """
        self.problems = list(problems)
        self.name = name
        count = len(self.problems)
        what = "1 problem" if count == 1 else f"{count} problems"
        super().__init__("\n".join([f"{name}: {what}", *(f"  {p}" for p in self.problems)]), hint=hint)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arguments of `__init__`: by default its argument would be the finished message."""
        return (_rebuild_recipe_error, (self.problems, self.name, self.hint))


def _rebuild_recipe_error(problems: list[str], name: str, hint: str | None) -> RecipeError:
    return RecipeError(problems, name=name, hint=hint)


class MissingInputError(PipoError):
    """A required file, model or data set is absent or cannot be read."""

    exit_code = 3


class CheckpointError(MissingInputError):
    """A checkpoint is unreadable, incomplete or of the wrong shape."""


class MachineError(PipoError):
    """This machine lacks a GPU, a package, memory, disk space or the like."""

    exit_code = 4


class Interrupted(PipoError):
    """The user has asked to stop; everything finished so far is kept."""

    exit_code = 130
