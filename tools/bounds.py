"""Prints what pip needs for an environment at one end of pyproject's version ranges.

`python -m tools.bounds lowest` prints constraints that pin each direct dependency to its lower bound.
`python -m tools.bounds newest` prints requirements for the newest transformers: everything but ms-swift, which caps it.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
_LOWER_BOUND = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\w.]+)")


def lowest(requirements: Iterable[str]) -> list[str]:
    """Return one constraint `name==version` for each of `requirements`, at its lower bound.

    Raises:
        ValueError: if one of them has no lower bound.
    """
    pins = []
    for requirement in requirements:
        bound = _LOWER_BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"{requirement}: has no lower bound")
        pins.append(f"{bound['name']}=={bound['version']}")
    return pins


def newest(requirements: Iterable[str]) -> list[str]:
    """Return `requirements` without ms-swift."""
    return [requirement for requirement in requirements if not requirement.startswith("ms-swift")]


def main(words: list[str]) -> None:
    """Print the lines for `lowest` or `newest`, the only word of the command line."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    every = [*project["dependencies"], *extras["train"], *extras["report"], *extras["dev"]]
    requirements = [requirement for requirement in every if not requirement.startswith(project["name"])]
    (end,) = words
    lines = {"lowest": lowest, "newest": newest}[end](requirements)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
