"""Errors that a user may cause or meet, each with a one-line message and, if there is one, a next step.

The exit codes are the table that the command line documents: 0 done, 1 failed while running, 2 usage or
recipe, 3 missing input or download, 4 environment, 130 interrupted.
"""

from collections.abc import Sequence


class PipoError(Exception):
    """A failure that pipo understands: shown as one line, without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the one-line `message` and the `hint` (the next command to try)."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PipoError):
    """A command, option or value that cannot be meant."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that is not valid; `problems` holds every problem found, one line each."""

    def __init__(self, problems: Sequence[str], *, name: str = "recipe", hint: str | None = None) -> None:
        """Keep all `problems` (each `file:line:col key: what is wrong`) of the recipe called `name`."""
        self.problems = list(problems)
        self.name = name
        count = len(self.problems)
        what = "1 problem" if count == 1 else f"{count} problems"
        super().__init__("\n".join([f"{name}: {what}", *(f"  {p}" for p in self.problems)]), hint=hint)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the problems: the default would pass the finished message to `__init__`."""
        return (_rebuild_recipe_error, (self.problems, self.name, self.hint))


def _rebuild_recipe_error(problems: list[str], name: str, hint: str | None) -> RecipeError:
    return RecipeError(problems, name=name, hint=hint)


class MissingInputError(PipoError):
    """A file, model or data set that is needed is absent or cannot be read."""

    exit_code = 3


class CheckpointError(MissingInputError):
    """A checkpoint that is unreadable, incomplete or of the wrong shape."""


class MachineError(PipoError):
    """This machine lacks something: a GPU, a package, memory, disk space."""

    exit_code = 4


class Interrupted(PipoError):
    """The user asked to stop; everything finished so far is kept."""

    exit_code = 130
