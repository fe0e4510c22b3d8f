"""The teacher of a distillation on servers: they read all answers of a step together and tell its likeliest tokens."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from pipo_core.engine import Completion
from pipo_core.engine.teacher_servers import open_teacher_servers, scoring_request
from pipo_core.errors import PipoError
from pipo_core.model import ListedTargets
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.worker.opd_examples import Question, Rollout
from pipo_core.train.worker.together import fail_together

TEACHER_IDS = "teacher_ids"
TEACHER_LOGPROBS = "teacher_logprobs"


class ServedTeacher:
    """Asks servers what the teacher holds likely behind each token that the student reads."""

    def __init__(self, recipe: DistillRecipe, settings: RemoteSettings, vocabulary: int) -> None:
        """Reach the servers.

        Args:
            recipe: names the student, and how many tokens are wanted.
            settings: of the servers.
            vocabulary: rows of the student's LM head.

        Raises:
            PipoError: if no server can be reached.
        """
        self._engine = open_teacher_servers(settings, Path(recipe.model))
        self._vocabulary = vocabulary
        self._top_k = min(recipe.kl.top_k, vocabulary)

    def read(self, questions: Sequence[Question], rollouts: Sequence[Rollout]) -> list[ListedTargets]:
        """Return the targets of each rollout, ``[T, K]``, in order.

        Args:
            questions: that the rollouts answer.
            rollouts: of a step. Servers read them without PADs; see `opd_teacher.Teacher.read` for the positions.

        Raises:
            PipoError: if one was not read, here or in another process.
        """
        texts = [_text(rollout) for rollout in rollouts]
        requests = [scoring_request(str(number), text, self._top_k) for number, text in enumerate(texts)]
        found = {completion.id: completion for completion in self._engine.generate(requests)}
        answers = [found[request.id] for request in requests]
        fail_together(self._failure(questions, answers))
        return [_targets(rollout, _listed(answer)) for rollout, answer in zip(rollouts, answers, strict=True)]

    def close(self) -> None:
        """Ask no more."""
        self._engine.close()

    def _failure(self, questions: Sequence[Question], answers: Sequence[Completion]) -> PipoError | None:
        """Return the error to raise if an answer was not read, or read by a model of more tokens; None if all were."""
        for question, answer in zip(questions, answers, strict=True):
            if answer.finish_reason == "error":
                return PipoError(
                    f"the teacher could not read the answer to the question of line {question.line}: {answer.error}",
                    hint="the same command goes on from the last checkpoint",
                )
            if max(max(row) for row, _ in _listed(answer)) >= self._vocabulary:
                return PipoError(f"the teacher's LM head has more rows than the student's {self._vocabulary:,}")
        return None


def _text(rollout: Rollout) -> list[int]:
    return [token for token, pad in zip(rollout.input_ids, rollout.pads, strict=True) if not pad]


def _listed(answer: Completion) -> list[tuple[list[int], list[float]]]:
    """Return ids and log-probabilities behind each token of a text: the likeliest ones, and the one that follows."""
    scores = [*(answer.prompt_scores or ()), *(answer.scores or ())[:1]]
    return [
        ([*(token for token, _ in score.top), score.token], [*(value for _, value in score.top), score.logprob])
        for score in scores
    ]


def _targets(rollout: Rollout, listed: Sequence[tuple[list[int], list[float]]]) -> ListedTargets:
    """Return what is listed at each position of a rollout; a PAD has what is behind the token before it."""
    positions = [count - 1 for count in accumulate(not pad for pad in rollout.pads)]
    ids, logprobs = zip(*listed, strict=True)
    return ListedTargets(torch.tensor(ids)[positions], torch.tensor(logprobs)[positions])


def collate_targets(targets: Sequence[ListedTargets]) -> dict[str, Any]:
    """Return the targets of a micro-batch, ``[B, T, K]``, by the names of the inputs that hold them."""
    ids, logprobs = (
        torch.nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*targets, strict=True)
    )
    return {TEACHER_IDS: ids, TEACHER_LOGPROBS: logprobs}
