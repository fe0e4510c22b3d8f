"""Recipes, inputs and jobs that take no time, for tests of what runs when."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipo_core.files import append_jsonl, read_jsonl
from pipo_core.recipes.build import BuildRecipe
from pipo_core.reporting import Reporter, SilentReporter


class Listener(SilentReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, msg: str) -> None:
        self.said.append(msg)

    def warn(self, msg: str) -> None:
        self.said.append(f"warning: {msg}")


@dataclass
class CopyJob:
    """Copies rollouts to train.jsonl row by row, and goes on from the rows that are there.

    `stop_at`: raise `error` before the row of this number, once.
    """

    calls: list[tuple[str, int]] = field(default_factory=list)
    stop_at: int | None = None
    error: BaseException | None = None

    def __call__(self, recipe: BuildRecipe, out: Path, reporter: Reporter, made_by: str) -> dict[str, Any]:
        target = out / "train.jsonl"
        rows = read_jsonl(Path(recipe.rollouts[0]))
        done = len(read_jsonl(target)) if target.exists() else 0
        self.calls.append((out.name, done))
        with reporter.progress("copy", len(rows), "row") as bar:
            for number, row in enumerate(rows[done:], start=done):
                if number == self.stop_at and self.error is not None:
                    error, self.error = self.error, None
                    raise error
                append_jsonl(target, [{**row, "seed": recipe.seed}])
                bar.advance(1, loss=float("nan"))
        return {
            "answers": len(rows),
            "train_rows": len(rows),
            "validation_rows": 0,
            "dropped": {},
        }


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def copy_job() -> type[CopyJob]:
    return CopyJob


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "rollouts.jsonl", count: int = 4, word: str = "a") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"n": n, "word": word}) + "\n" for n in range(count)))
        return path

    return write
