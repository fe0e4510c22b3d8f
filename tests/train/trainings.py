"""Trainings of a few steps in this process, and what tests look at afterwards."""

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipo_core.engine import Slot
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.reporting import Progress, SilentReporter
from pipo_core.train.events import EventWriter
from pipo_core.train.worker.opd_examples import (
    Rollout,
    lay_out_rollout,
)
from pipo_core.train.worker.process import Job, train
from pipo_core.train.worker.stop import StopRequest
from tests.tiny import make_tokenizer

LORA = {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.2}


PAD = 256  # end-of-text of the tests' tokenizer


TOKENIZER = make_tokenizer()


class Listener(SilentReporter):
    """Keeps all messages and, once a step of the training is reached, does something."""

    def __init__(self, at: int | None = None, act: Callable[[], None] | None = None) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []
        self.figures: dict[str, float] = {}
        self.reached: dict[str, int] = {}
        self._at, self._act = at, act

    def info(self, msg: str) -> None:
        self.said.append(msg)

    def warn(self, msg: str) -> None:
        self.said.append(msg)

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        listener = self

        class Bar(Progress):
            def update(self, done: int, **figures: float) -> None:
                listener.reached[title] = done
                if title != "train":
                    return
                listener.steps.append(done)
                listener.figures.update(figures)
                if listener._at is not None and done >= listener._at:
                    listener._at = None
                    assert listener._act is not None
                    listener._act()

        return Bar(title, total, unit)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def train_here(
    settings: AnyTraining, out: Path, *, made_by: str = "test", stop_file: str = "stop"
) -> list[dict[str, Any]]:
    """Train in this process and return the events."""
    out.mkdir(parents=True, exist_ok=True)
    heard = io.StringIO()
    stop = StopRequest(out / stop_file)
    job = Job(settings, out, made_by, "tiny-base")
    train(job, is_first=True, events=EventWriter(heard, on_lost=stop.ask), stop=stop)
    return [json.loads(line) for line in heard.getvalue().splitlines()]


def distill_recipe(student: Path, teacher: Path, rows: Path, **changes: object) -> DistillRecipe:
    settings = {
        "model": str(student),
        "teacher": str(teacher),
        "seed": 5,
        "data": {"train": str(rows), "max_prompt": 64},
        "rollout": {"slots": 6, "batch": 8, "tau": 0.5},
        "tuning": {"method": "full"},
        "optimizer": {"learning_rate": 1e-3},
        "batch": {"per_device": 2, "accumulation": 2},
        "max_steps": 2,
        "precision": "fp32",
        "save": {"every_steps": 1, "keep": 4},
        "log_every_steps": 1,
        "launch": {"threads": 1},
        **changes,
    }
    return DistillRecipe.model_validate(settings)


def some_rollouts() -> list[Rollout]:
    """Rows of different lengths: odd and even prompts, kept, rejected and no drafts, PAD's id as text."""
    return [
        lay_out_rollout(
            [1, PAD, 3], [Slot(4, 5, True), Slot(6, 7, False), Slot(8, 9, True), Slot(258, None, False)], PAD
        ),
        lay_out_rollout([10, 11], [Slot(12, 13, False), Slot(14, PAD, True)], PAD),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(next(folder.glob("*.safetensors")))
    return loaded


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]
