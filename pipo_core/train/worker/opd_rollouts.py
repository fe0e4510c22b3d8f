"""The student's answers, sampled by its own pair decoder with its weights at that step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Request, request_seed
from pipo_core.engine.torch_opening import student_engine
from pipo_core.errors import PipoError
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.worker.opd_examples import Question, Rollout, lay_out_rollout


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
    """Answers questions in this process."""

    def __init__(
        self,
        wrapped: nn.Module,
        model: Qwen3_5ForCausalPIPO,
        tokenizer: PreTrainedTokenizerBase,
        recipe: DistillRecipe,
        precision: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Use a model that trains.

        Args:
            wrapped: the model with its adapters; it decodes in evaluation mode, without dropout.
            model: the pair model within.
            tokenizer: the model's.
            recipe: its rollout settings and seed.
            precision: opens the trainer's automatic mixed precision, in which the weights are to be used.
        """
        self._wrapped = wrapped
        self._model = model
        self._tokenizer = tokenizer
        self._seed = recipe.seed
        self._settings = recipe.rollout
        self._max_length = recipe.data.max_prompt + recipe.rollout.slots
        self._precision = precision

    def answer(self, questions: Sequence[Question], step: int) -> tuple[list[Rollout], RolloutFigures]:
        """Return a rollout for each question, in order, and the figures of them all.

        Sampling is keyed by seed, step and question, so a resumed training, or one that answers with another
        ``rollout.batch``, samples the same tokens. Rollouts are plain numbers, so no autograd graph leaves the engine.

        Args:
            questions: of the step.
            step: optimizer steps done.

        Raises:
            PipoError: if the engine could not answer one of the questions.
        """
        engine = student_engine(
            self._model,
            self._tokenizer,
            tau=self._settings.tau,
            batch=self._settings.batch,
            max_length=self._max_length,
        )
        requests = [self._request(str(number), question, step) for number, question in enumerate(questions)]
        was_training = self._wrapped.training
        self._wrapped.eval()
        try:
            with self._precision():
                completions = {completion.id: completion for completion in engine.generate(requests)}
        finally:
            self._wrapped.train(was_training)
        answers = [completions[request.id] for request in requests]
        for question, answer in zip(questions, answers, strict=True):
            if answer.finish_reason == "error":
                raise PipoError(f"the student could not answer the question of line {question.line}: {answer.error}")
        pad_id = int(self._tokenizer.pad_token_id)
        rollouts = [
            lay_out_rollout(question.prompt_ids, answer.record or [], pad_id)
            for question, answer in zip(questions, answers, strict=True)
        ]
        return rollouts, _figures(answers)

    def _request(self, name: str, question: Question, step: int) -> Request:
        seed = request_seed("distill", self._seed, step, question.line)
        return Request(
            id=name,
            prompt_ids=question.prompt_ids,
            sampling=SamplingParams(**self._settings.sampling.model_dump(), seed=seed),
            max_slots=self._settings.slots,
            record=True,
        )


def _figures(answers: Sequence[Completion]) -> RolloutFigures:
    tokens = sum(answer.tokens for answer in answers)
    return RolloutFigures(
        rollout_tokens=tokens / len(answers),
        tokens_per_slot=tokens / sum(answer.slots or 0 for answer in answers),
        drafts_kept=sum(answer.kept or 0 for answer in answers) / max(1, sum(answer.drafts or 0 for answer in answers)),
        rollouts_finished=sum(answer.finish_reason == "stop" for answer in answers) / len(answers),
    )
