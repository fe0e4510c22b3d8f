"""Suites by name: which files a name stands for."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.recipes.load import load_suite_file
from pipo_core.recipes.locate import shipped_suites
from pipo_core.recipes.suite import Profile, SuiteFile
from pipo_core.text import did_you_mean


@dataclass(frozen=True)
class NamedSuite:
    """A suite and where its file is.

    Attributes:
        name: of its file, without the ending.
        path: its file.
        suite: what the file says.
    """

    name: str
    path: Path
    suite: SuiteFile

    @property
    def given_name(self) -> str:
        """Return what the command line calls it: its name if it is shipped, else its file."""
        return self.name if shipped_suites().get(self.name) == self.path else str(self.path)

    def profile_name(self, asked: str | None) -> str:
        """Return the name of the profile that is asked for, or of the usual one.

        Raises:
            UsageError: if the suite has no such profile; the message has the nearest one.
        """
        profiles = self.suite.profiles
        if asked is not None and asked not in profiles:
            raise UsageError(
                f"suite {self.name} has no profile {asked!r}{did_you_mean(asked, profiles)}; "
                f"profiles: {', '.join(profiles)}"
            )
        return asked or next(iter(profiles))

    def profile(self, asked: str | None) -> Profile:
        """Return the profile that is asked for, or the usual one; see `profile_name`."""
        return self.suite.profiles[self.profile_name(asked)]


def find_suites(name: str) -> list[NamedSuite]:
    """Return the suites that a name stands for: one, or those of a group.

    Args:
        name: a shipped suite or group, or a file of `kind: suite` or `kind: suites`.

    Raises:
        MissingInputError: if there is none; the message has the nearest name.
        RecipeError: if a file is not valid.
        UsageError: if a group names a group, or two suites of the same name, or a name has other characters than
            letters, digits, - and _.
    """
    path = suite_path(name)
    found = load_suite_file(path)
    if isinstance(found, SuiteFile):
        return [_named(path, found)]
    members: list[NamedSuite] = []
    for member in found.suites:
        beside = path.parent / member
        inner = beside if beside.is_file() else suite_path(member)
        suite = load_suite_file(inner)
        if not isinstance(suite, SuiteFile):
            raise UsageError(f"{path}: {member} is a group; a group names suites")
        if inner.stem in [one.name for one in members]:
            raise UsageError(f"{path}: two suites are called {inner.stem}")
        members.append(_named(inner, suite))
    return members


def _named(path: Path, suite: SuiteFile) -> NamedSuite:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
        raise UsageError(f"{path}: a suite is named after its file, in letters, digits, - and _")
    return NamedSuite(path.stem, path, suite)


def suite_path(name: str) -> Path:
    """Return the file that a name stands for.

    Raises:
        MissingInputError: if there is none; the message has the nearest name.
    """
    shipped = shipped_suites()
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    where = "no such file, and no shipped suite" if "/" in name or name.endswith((".yaml", ".yml")) else "no such suite"
    raise MissingInputError(f"{name}: {where}{did_you_mean(path.stem, shipped)}", hint=f"suites: {', '.join(shipped)}")
