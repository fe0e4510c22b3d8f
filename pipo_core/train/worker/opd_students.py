"""Who answers the questions of a distillation: the model in this process, or servers that get its weights."""

import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from pipo_core.engine import Completion, Request
from pipo_core.engine.student_servers import StudentServers, open_student_servers
from pipo_core.engine.torch_opening import student_engine
from pipo_core.errors import MachineError
from pipo_core.files import new_folder
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.writing import write_weights
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.opd import DistillRecipe, ServerSettings
from pipo_core.train.worker.student_weights import standalone_weights
from pipo_core.train.worker.together import from_first, is_first


class Student(Protocol):
    """Answers questions with the weights that the student has at a step."""

    def prepare(self, step: int) -> None:
        """Take the student's weights of now for the answers that follow.

        Args:
            step: optimizer steps done.
        """
        ...

    def answers(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion for each request, in order, with its record."""
        ...

    def failure(self) -> MachineError | None:
        """Return why it cannot answer any more; None while it can."""
        ...

    def close(self) -> None:
        """End what was started for it, and remove its files."""
        ...


class TrainingStudent:
    """The model that trains, in this process."""

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
            recipe: its rollout settings.
            precision: opens the trainer's automatic mixed precision, in which the weights are to be used.
        """
        self._wrapped = wrapped
        self._model = model
        self._tokenizer = tokenizer
        self._settings = recipe.rollout
        self._max_length = recipe.data.max_prompt + recipe.rollout.slots
        self._precision = precision

    def prepare(self, step: int) -> None:
        """See `Student`: the weights are here."""

    def answers(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Student`."""
        engine = student_engine(
            self._model,
            self._tokenizer,
            tau=min(self._settings.thresholds),
            batch=self._settings.batch,
            max_length=self._max_length,
        )
        was_training = self._wrapped.training
        self._wrapped.eval()
        try:
            with self._precision():
                found = {completion.id: completion for completion in engine.generate(requests)}
        finally:
            self._wrapped.train(was_training)
        return [found[request.id] for request in requests]

    def failure(self) -> MachineError | None:
        """See `Student`: nothing but this process can fail."""
        return None

    def close(self) -> None:
        """See `Student`."""


class ServedStudent:
    """SGLang's servers, which load the student's weights before each step.

    The first process starts the server, if the recipe names none, and hands the weights over; every process asks its
    own questions.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        model: Qwen3_5ForCausalPIPO,
        recipe: DistillRecipe,
        settings: ServerSettings,
        out: Path,
    ) -> None:
        """Start the server, or reach those that run.

        Args:
            wrapped: the model with its adapters.
            model: the pair model within.
            recipe: its rollout settings, precision and starting point.
            settings: of the servers.
            out: a folder for the weights, which servers must be able to read.

        Raises:
            PipoError: if the server does not start, or those that run cannot be reached or are not SGLang's.
        """
        self._wrapped = wrapped
        self._model = model
        self._out = out
        self._dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
        self._run = uuid.uuid4().hex[:8]
        opened = self._open(recipe, settings) if is_first() else None
        urls = from_first(None if opened is None else list(opened.engine.urls))
        if opened is None:
            if isinstance(settings, RemoteSettings):
                asked = settings
            else:
                asked = RemoteSettings(kind="remote", urls=urls or [], concurrency=settings.concurrency)
            opened = self._open(recipe, asked)
        self._servers: StudentServers = opened

    @staticmethod
    def _open(recipe: DistillRecipe, settings: ServerSettings) -> StudentServers:
        dtype: Literal["float32", "bfloat16"] = "float32" if recipe.precision == "fp32" else "bfloat16"
        return open_student_servers(Path(recipe.model), min(recipe.rollout.thresholds), settings, dtype=dtype)

    def prepare(self, step: int) -> None:
        """See `Student`: the weights are handed over.

        Processes have nothing to wait for here: the gradients of the step before needed the answers of all of them.

        Raises:
            PipoError: if a server does not load them.
        """
        version = f"{self._run}-{step}"
        if is_first():
            with new_folder(self._out) as folder:
                weights = standalone_weights(self._wrapped, self._dtype)
                write_weights(self._model, folder, layout="pipo", state=weights)
            self._servers.load(self._out, version)
        self._servers.expect(from_first(version))

    def answers(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Student`."""
        found = {completion.id: completion for completion in self._servers.engine.generate(requests)}
        return [found[request.id] for request in requests]

    def failure(self) -> MachineError | None:
        """See `Student`."""
        lost = self._servers.engine.failure()
        hint = "the same command goes on from the last checkpoint"
        return None if lost is None else MachineError(lost.message, hint=hint)

    def close(self) -> None:
        """See `Student`."""
        self._servers.engine.close()
        if is_first():
            shutil.rmtree(self._out, ignore_errors=True)
