"""An on-policy distillation in this process (paper, section 4.2; docs/algorithm.md).

It is ms-swift's supervised pipeline with three hooks, not its ``GKDTrainer``. Before each optimizer step the student
answers all questions of that step together (`get_batch_samples`, where the Trainer collects a step's micro-batches).
For each micro-batch the teacher is asked. The loss is computed inside the model's ``forward``. The GKD trainer has
rollout engines, prompts and losses of its own, and none of them would be used. This way resuming, the mean over
micro-batches, several processes, checkpoints and progress are those of `pipo train`, which are tested there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from swift import SftArguments

from pipo_core.engine.student_servers import check_student_servers
from pipo_core.engine.teacher_servers import check_teacher_servers
from pipo_core.model import ListedTargets, LossWeights
from pipo_core.model.frequent_tokens import DRAFT_VOCAB, FrequentTokens, read_draft_vocab
from pipo_core.recipes.opd import DistillRecipe, TrainingProcess
from pipo_core.train.layout import HANDOVER
from pipo_core.train.worker.metrics import TimeShare, synchronised_time
from pipo_core.train.worker.opd_examples import Question, Questions, collate_rollouts, read_questions
from pipo_core.train.worker.opd_rollouts import RolloutMaker
from pipo_core.train.worker.opd_served_teacher import ServedTeacher, collate_targets
from pipo_core.train.worker.opd_students import ServedStudent, Student, TrainingStudent
from pipo_core.train.worker.opd_teacher import Teacher
from pipo_core.train.worker.opd_template import DistillLossSettings
from pipo_core.train.worker.session import PairSession

_TIME_SHARES = ("rollout_share", "teacher_share", "student_share")
_HANDOVER_SHARE = "handover_share"


class OpdSession(PairSession):
    """On-policy distillation from an uncompressed teacher to the pair model."""

    def __init__(self, arguments: SftArguments, recipe: DistillRecipe, out: Path, **common: Any) -> None:
        """Load student, tokenizer and teacher.

        Args:
            arguments: ms-swift's.
            recipe: what they were made from.
            out: the stage's folder.
            common: keyword arguments of `PairSession`.

        Raises:
            PipoError: if the servers that are to answer cannot be started or reached.
            CheckpointError: if the gate is to learn a draft vocabulary, and the student has no token counts.
        """
        self._opd = recipe
        self._handover = out / HANDOVER
        self._student: Student | None = None
        self._rollouts: RolloutMaker | None = None
        self._served_teacher: ServedTeacher | None = None
        if recipe.teacher_engine is not None:
            longest = recipe.data.max_prompt + 2 * recipe.rollout.slots
            student = Path(recipe.model)
            check_teacher_servers(recipe.teacher_engine, student, top_k=recipe.kl.top_k, longest=longest)
        if recipe.draft_vocab is not None:
            read_draft_vocab(Path(recipe.model))
        if not isinstance(recipe.rollout.engine, TrainingProcess):
            check_student_servers(recipe.rollout.engine)
        super().__init__(arguments, recipe, **common)

    @property
    def _is_served(self) -> bool:
        """Whether servers answer, which get the weights before each step."""
        return not isinstance(self._opd.rollout.engine, TrainingProcess)

    def _prepare_template(self) -> None:
        super()._prepare_template()
        recipe = self._opd
        loss, kl = recipe.loss, recipe.kl
        self.template.settings = DistillLossSettings(
            teacher=self._open_teacher(),
            weights=LossWeights(mtp=loss.mtp, confidence=loss.confidence, chunk=kl.chunk),
            mode=kl.mode,
            temperature=recipe.divergence_temperature,
            top_k=kl.top_k,
            check_loss=lambda loss, questions: self._nan_guard.check_loss(loss, _lines(questions)),
            timed=self._timed,
        )

    def _open_teacher(self) -> Teacher | None:
        """Return the teacher in this process; None if servers answer for it, which are reached instead."""
        recipe, device = self._opd, self.bare_model.device
        if recipe.teacher_engine is not None:
            vocabulary = int(self.bare_model.config.vocab_size)
            self._served_teacher = ServedTeacher(recipe, recipe.teacher_engine, vocabulary)
            return None
        assert recipe.teacher is not None  # noqa: S101 - the recipe names one, or servers
        return Teacher(
            Path(recipe.teacher),
            dtype=torch.float32 if recipe.precision == "fp32" else torch.bfloat16,
            student_device=device,
            device=device if recipe.teacher_device == "same" else torch.device(recipe.teacher_device),
            offload=recipe.offload,
        )

    def _prepare_dataset(self) -> tuple[Questions, None]:
        data = self._opd.data
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
        """Let the student answer before each step, and measure what the parts of a step take."""
        collect = trainer.get_batch_samples

        def collect_and_answer(*arguments: Any) -> tuple[list[dict[str, Any]], Any]:
            micro_batches, count = collect(*arguments)
            return self._answered(micro_batches), count

        trainer.get_batch_samples = collect_and_answer
        for name in (*_TIME_SHARES, *((_HANDOVER_SHARE,) if self._is_served else ())):
            trainer.custom_metrics["train"][name] = TimeShare(of_the_rest=name == "student_share")

    def _before_first_step(self) -> None:
        """Open what answers: a server takes minutes, which are no part of a step."""
        self._student = self._open_student()
        self._rollouts = RolloutMaker(self._student, self.template.tokenizer, self._opd)

    def _open_student(self) -> Student:
        engine = self._opd.rollout.engine
        if isinstance(engine, TrainingProcess):
            autocast = self.trainer.accelerator.autocast
            return TrainingStudent(self.model, self.bare_model, self.template.tokenizer, self._opd, autocast)
        if engine.kind == "sglang":
            self._events.write("info", message="starting SGLang's server, which answers the questions")
        return ServedStudent(self.model, self.bare_model, self._opd, engine, self._handover)

    def train(self, trainer: Any) -> dict[str, Any]:
        """Train, and end what answered the questions, however the training ends; see `PairSession.train`."""
        try:
            return super().train(trainer)
        finally:
            for opened in (self._student, self._served_teacher):
                if opened is not None:
                    opened.close()

    def _answered(self, micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a step's micro-batches with the student's answers to their questions."""
        questions = [question for micro_batch in micro_batches for question in micro_batch["questions"]]
        self._nan_guard.lines = _lines(questions)
        if self._student is None or self._rollouts is None or not micro_batches:
            return micro_batches
        step = self.trainer.state.global_step
        if self._is_served:
            with self._timed(_HANDOVER_SHARE):
                self._student.prepare(step)
        with self._timed("rollout_share"):
            rollouts, figures = self._rollouts.answer(questions, step)
        for name, value in figures._asdict().items():
            self.trainer.custom_metrics["train"][name].update(value)
        targets: list[ListedTargets] | None = None
        if self._served_teacher is not None:
            with self._timed("teacher_share"):
                targets = self._served_teacher.read(questions, rollouts)
        pad_id = int(self.template.tokenizer.pad_token_id)
        answered, done = [], 0
        for micro_batch in micro_batches:
            mine = slice(done, done + len(micro_batch["questions"]))
            done = mine.stop
            listed = {} if targets is None else collate_targets(targets[mine])
            answered.append({**micro_batch, **collate_rollouts(rollouts[mine], pad_id)._asdict(), **listed})
        return answered

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Measure one part of a step; what no part takes is the student's share."""
        began = synchronised_time()
        yield
        seconds = synchronised_time() - began
        metrics = self.trainer.custom_metrics["train"]
        for name in (part, "student_share"):
            metrics[name].update(seconds)

    def _token_counts(self) -> FrequentTokens | None:
        """Return the student's, if it has some: a distillation has no training set of its own."""
        folder = Path(self._opd.model)
        return read_draft_vocab(folder) if (folder / DRAFT_VOCAB).is_file() else None


def _lines(questions: list[Question]) -> list[int]:
    return [question.line for question in questions]
