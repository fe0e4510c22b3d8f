"""The student's answers, sampled by its own pair decoder with its weights at that step."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pipo_core.chat import end_ids
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Request, request_seed
from pipo_core.errors import PipoError
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.worker.opd_examples import Question, Rollout, lay_out_rollout
from pipo_core.train.worker.opd_students import Student
from pipo_core.train.worker.together import fail_together


class RolloutFigures(NamedTuple):
    """Figures of some answers.

    Attributes:
        rollout_tokens: mean tokens of an answer, without PADs.
        tokens_per_slot: in [1, 2].
        drafts_kept: share of the drafts, in [0, 1].
        rollouts_finished: share of the answers that ended by themselves, in [0, 1].
    """

    rollout_tokens: float
    tokens_per_slot: float
    drafts_kept: float
    rollouts_finished: float


class RolloutMaker:
    """Asks the student, and lays its answers out for training."""

    def __init__(self, student: Student, tokenizer: PreTrainedTokenizerBase, recipe: DistillRecipe) -> None:
        """Ask a student.

        Args:
            student: answers.
            tokenizer: the model's.
            recipe: its rollout settings and seed.
        """
        self._student = student
        self._tokenizer = tokenizer
        self._seed = recipe.seed
        self._settings = recipe.rollout
        self._end_ids = end_ids(tokenizer)

    def answer(self, questions: Sequence[Question], step: int) -> tuple[list[Rollout], RolloutFigures]:
        """Return a rollout for each question, in order, and the figures of them all.

        Sampling is keyed by seed, step and question, and so is the threshold where there are several. So a resumed
        training, or one that answers with another ``rollout.batch``, samples the same tokens; servers need a flag to
        honour seeds. Rollouts are plain numbers, so
        no autograd graph leaves the engine.

        Args:
            questions: of the step.
            step: optimizer steps done.

        Raises:
            PipoError: if the student could not answer one of the questions, here or in another process.
        """
        requests = [self._request(str(number), question, step) for number, question in enumerate(questions)]
        answers = self._student.answers(requests)
        fail_together(self._failure(questions, answers))
        pad_id = int(self._tokenizer.pad_token_id)
        rollouts = [
            lay_out_rollout(question.prompt_ids, answer.record or [], pad_id)
            for question, answer in zip(questions, answers, strict=True)
        ]
        return rollouts, _figures(answers)

    def _failure(self, questions: Sequence[Question], answers: Sequence[Completion]) -> PipoError | None:
        """Return the error to raise if a question was not answered; None if all were."""
        for question, answer in zip(questions, answers, strict=True):
            if answer.finish_reason == "error":
                message = f"the student could not answer the question of line {question.line}: {answer.error}"
                return self._student.failure() or PipoError(message)
        return None

    def _request(self, name: str, question: Question, step: int) -> Request:
        seed = request_seed("distill", self._seed, step, question.line)
        thresholds = self._settings.thresholds
        return Request(
            id=name,
            prompt_ids=question.prompt_ids,
            sampling=SamplingParams(**self._settings.sampling.model_dump(), seed=seed),
            max_slots=self._settings.slots,
            stop_ids=self._end_ids,
            record=True,
            tau=thresholds[(step + question.line) % len(thresholds)],
        )


def _figures(answers: Sequence[Completion]) -> RolloutFigures:
    tokens = sum(answer.tokens for answer in answers)
    return RolloutFigures(
        rollout_tokens=tokens / len(answers),
        tokens_per_slot=tokens / sum(answer.slots or 0 for answer in answers),
        drafts_kept=sum(answer.kept or 0 for answer in answers) / max(1, sum(answer.drafts or 0 for answer in answers)),
        rollouts_finished=sum(answer.finish_reason == "stop" for answer in answers) / len(answers),
    )
