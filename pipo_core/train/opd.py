"""One distillation in this process (paper, section 4.2; docs/algorithm.md).

It is ms-swift's supervised pipeline with three hooks, not its ``GKDTrainer``: before each optimizer step the student
answers that step's questions (`get_batch_samples`, where the Trainer collects all its passes, so that they are answered
together); each pass asks the teacher; and the loss is computed inside the model's ``forward``. GKD's trainer brings
rollout engines, prompts and losses of its own, of which nothing would be left; this way resuming, the mean over passes,
several processes, checkpoints and progress are those of `pipo train`, tested there.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from swift import SftArguments
from swift.metrics.utils import Metric

from pipo_core.model import LossWeights
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.opd_rollouts import RolloutMaker
from pipo_core.train.opd_rows import Question, Questions, collate_drawn, read_questions
from pipo_core.train.opd_teacher import Teacher
from pipo_core.train.opd_template import DistillPlan
from pipo_core.train.session import PairSession

_TIMED = ("rollout_share", "teacher_share", "student_share")


class PairDistillation(PairSession):
    """On-policy distillation."""

    def __init__(self, arguments: SftArguments, recipe: DistillRecipe, **common: Any) -> None:
        """Load student, tokenizer and teacher.

        Args:
            arguments: ms-swift's.
            recipe: what they were made from.
            common: what every session is given.
        """
        self._settings = recipe
        self._rollouts: RolloutMaker | None = None
        super().__init__(arguments, recipe, **common)

    def _prepare_template(self) -> None:
        super()._prepare_template()
        settings = self._settings
        device = self.bare_model.device
        place = settings.teacher_device
        teacher = Teacher(
            Path(settings.teacher),
            dtype=torch.float32 if settings.precision == "fp32" else torch.bfloat16,
            student_device=device,
            device=device if place == "same" else torch.device(place),
            offload=settings.offload,
        )
        loss, kl = settings.loss, settings.kl
        self.template.lesson = DistillPlan(
            teacher=teacher,
            weights=LossWeights(mtp=loss.mtp, confidence=loss.confidence, chunk=kl.chunk),
            mode=kl.mode,
            temperature=kl.temperature or settings.rollout.sampling.temperature,
            top_k=kl.top_k,
            check=lambda loss, questions: self._numbers.loss(loss, _lines(questions)),
            took=self._took,
        )

    def _prepare_dataset(self) -> tuple[Questions, None]:
        data = self._settings.data
        done = 0

        def count(number: int) -> None:
            nonlocal done
            done = number
            self._events.count("encode", name="train", done=number)

        questions = read_questions(
            Path(data.train), self.template.tokenizer, max_prompt=data.max_prompt, limit=data.limit, progress=count
        )
        self._events.write("encode", name="train", done=done)
        return questions, None

    def _prepare_trainer(self, trainer: Any) -> None:
        """Let the student answer before each step, and time the parts."""
        self._rollouts = RolloutMaker(
            trainer.model, self.bare_model, self.template.tokenizer, self._settings, trainer.accelerator.autocast
        )
        collect = trainer.get_batch_samples

        def collect_and_answer(*arguments: Any) -> tuple[list[dict[str, Any]], Any]:
            passes, count = collect(*arguments)
            return self._answered(passes), count

        trainer.get_batch_samples = collect_and_answer
        for name in _TIMED:
            trainer.custom_metrics["train"][name] = TimeShare(of_the_rest=name == "student_share")

    def _answered(self, passes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a step's passes with the student's answers to their questions."""
        questions = [question for batch in passes for question in batch["questions"]]
        self._numbers.lines = _lines(questions)
        if self._rollouts is None or not passes:
            return passes
        with self._took("rollout_share"):
            rows, figures = self._rollouts.answer(questions, self.trainer.state.global_step)
        for name, value in figures._asdict().items():
            self.trainer.custom_metrics["train"][name].update(value)
        remaining = iter(rows)
        pad_id = int(self.template.tokenizer.pad_token_id)
        return [
            {**batch, **collate_drawn([next(remaining) for _ in batch["questions"]], pad_id)._asdict()}
            for batch in passes
        ]

    @contextmanager
    def _took(self, part: str) -> Iterator[None]:
        """Time a part of a step; the student has the rest."""
        began = _now()
        yield
        seconds = _now() - began
        metrics = self.trainer.custom_metrics["train"]
        for name in (part, "student_share"):
            metrics[name].update(seconds)


class TimeShare(Metric):
    """The share of wall time since the last report that a part took, or what such parts left, in [0, 1]."""

    def __init__(self, *, of_the_rest: bool) -> None:
        super().__init__()
        self._of_the_rest = of_the_rest
        self.reset()

    def reset(self) -> None:
        """Start a new span."""
        self._since = time.monotonic()
        self._seconds = 0.0

    def update(self, seconds: float) -> None:
        """Add what one call took."""
        self._seconds += seconds

    def compute(self) -> dict[str, float]:
        """Return the share."""
        share = min(self._seconds / max(time.monotonic() - self._since, 1e-9), 1.0)
        return {"value": 1 - share if self._of_the_rest else share}


def _lines(questions: list[Question]) -> list[int]:
    return [question.line for question in questions]


def _now() -> float:
    """Return the time when all that was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
