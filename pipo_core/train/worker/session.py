"""One training in this process: ms-swift's pipeline with our data, model and chat format.

`PairSession` holds what every training does. `sft_session` and `opd_session` add what is theirs. Which of these methods
is called when: docs/training-hooks.md.
"""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from swift import SftArguments
from swift.pipelines.train.sft import SwiftSft
from torch import nn

from pipo_core.chat import end_ids
from pipo_core.errors import MissingInputError
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.frequent_tokens import FrequentTokens, draft_ids, read_draft_vocab, write_draft_vocab
from pipo_core.recipes.opd import AnyTraining
from pipo_core.train.checkpoints import step_of
from pipo_core.train.events import EventWriter
from pipo_core.train.trainable import frozen_modules, keeps_fp32_weights
from pipo_core.train.worker.callbacks import TrainingEvents
from pipo_core.train.worker.gate_metric import GateMetric
from pipo_core.train.worker.metrics import TokenRate
from pipo_core.train.worker.nan_guard import NanGuard
from pipo_core.train.worker.resume import refuse_different_starts, refuse_lone_processes, refuse_unrestored
from pipo_core.train.worker.stop import StopRequest
from pipo_core.train.worker.template import CALIBRATION


class PairSession(SwiftSft):
    """ms-swift's supervised fine-tuning with our data, model and chat format.

    Attributes:
        recipe: what is trained.
        trainer: ms-swift's, from `train` on.
    """

    def __init__(
        self,
        arguments: SftArguments,
        recipe: AnyTraining,
        *,
        made_by: str,
        events: EventWriter,
        stop: StopRequest,
    ) -> None:
        """Load model and tokenizer.

        Args:
            arguments: ms-swift's.
            recipe: what they were made from.
            made_by: fingerprint of everything that the weights depend on.
            events: where progress goes.
            stop: asks the training to end early.
        """
        self.recipe = recipe
        self._made_by = made_by
        self._events = events
        self._stop = stop
        self._training_events: TrainingEvents | None = None
        self._nan_guard = NanGuard(recipe.data.train)
        self.trainer: Any = None
        super().__init__(arguments)

    @property
    def stopped(self) -> bool:
        """Whether the training ended early because it was asked to."""
        return self._training_events is not None and self._training_events.stopped

    @property
    def bare_model(self) -> Qwen3_5ForCausalPIPO:
        """The pair model itself, without the wrappers of adapters and processes."""
        model: Qwen3_5ForCausalPIPO = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return model

    @classmethod
    def prepare_model(cls, args: SftArguments, model: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the model with its adapters, or with all weights in training."""
        # PEFT's wrapper for causal language models passes arguments (masks, caches) that the pair model does not take.
        # This task type selects the generic wrapper, and has no other effect here.
        kwargs["task_type"] = "embedding"
        prepared: nn.Module = super().prepare_model(args, model, **kwargs)
        return prepared

    def train(self, trainer: Any) -> dict[str, Any]:
        """Train with ms-swift's trainer, or only restore the weights if the checkpoint to go on from is the last one.

        Args:
            trainer: has model, template and data.

        Returns:
            ms-swift's summary, which nobody reads.

        Raises:
            MissingInputError: if there are fewer examples than processes.
            CheckpointError: if the processes go on from different steps, or a weight was not restored.
            MachineError: if the processes do not train together.
        """
        self.trainer = trainer
        refuse_lone_processes(trainer.args.world_size)
        if len(trainer.train_dataset) < trainer.args.world_size:
            raise MissingInputError(
                f"{self.recipe.data.train}: {len(trainer.train_dataset)} rows are too few for "
                f"{trainer.args.world_size} processes"
            )
        self._freeze_and_cast()
        trainer.custom_metrics["train"]["tokens_per_second"] = TokenRate(trainer.args.device)
        if self.recipe.objective == "pipo":
            trainer.custom_metrics["train"][CALIBRATION] = GateMetric(trainer.args.device)
        self._teach_draft_vocab()
        self._prepare_trainer(trainer)
        # The Trainer would count every parameter for each micro-batch, for a figure that nobody reads.
        trainer.floating_point_ops = lambda _: 0
        resume_from = trainer.args.resume_from_checkpoint
        refuse_different_starts(resume_from)
        self._training_events = TrainingEvents(
            self._events,
            self._stop,
            made_by=self._made_by,
            rows=len(trainer.train_dataset),
            dropped=trainer.train_dataset.dropped,
            before_first_step=lambda: self._begin(trainer, resume_from),
        )
        trainer.add_callback(self._nan_guard)
        trainer.add_callback(self._training_events)
        if resume_from is not None:
            step, last_step = step_of(Path(resume_from))
            if step >= last_step:
                trainer._load_from_checkpoint(resume_from)  # noqa: SLF001 - as the Trainer does when it resumes
                refuse_unrestored(trainer.model, resume_from)
                trainer.state.global_step = trainer.state.max_steps = step
                return {}
        result: dict[str, Any] = super().train(trainer)
        return result

    def _begin(self, trainer: Any, resume_from: str | None) -> None:
        """Check the restored weights, and start the metrics' clocks with the first step."""
        refuse_unrestored(trainer.model, resume_from)
        self._before_first_step()
        for metric in trainer.custom_metrics["train"].values():
            metric.reset()

    def _prepare_trainer(self, trainer: Any) -> None:
        """Change the trainer for this kind of training, before it starts; by default not at all."""

    def _before_first_step(self) -> None:
        """Open what the steps need, once the weights are restored; by default nothing."""

    @abstractmethod
    def _token_counts(self) -> FrequentTokens | None:
        """Return how often the training set holds each token; None if that is not known."""

    def record_token_counts(self, folder: Path) -> None:
        """Write the token counts, if known, and the gate's draft vocabulary into a checkpoint or an adapter."""
        counts = self._token_counts()
        if counts is not None:
            write_draft_vocab(folder, counts._replace(gate=self.recipe.draft_vocab))

    def _teach_draft_vocab(self) -> None:
        """Have the loss teach the gate which ids drafts come from, if the recipe says so.

        Raises:
            CheckpointError: if the token counts are not known.
            UsageError: if the ids that end a text find no room, or the model has fewer ids.
        """
        size = self.recipe.draft_vocab
        if size is None:
            return
        counts = self._token_counts() or read_draft_vocab(Path(self.recipe.model))
        ends = end_ids(self.template.tokenizer, Path(self.recipe.model))
        chosen = draft_ids(size, counts.ids, ends, self.bare_model.config.vocab_size)
        ids = torch.tensor(chosen, device=self.trainer.args.device)
        self.template.settings = replace(self.template.settings, draft_ids=ids)

    def _freeze_and_cast(self) -> None:
        """Freeze the modules that the objective does not run, and cast trained weights to fp32 where pipo keeps it."""
        for module in frozen_modules(self.recipe):
            self.bare_model.get_submodule(module).requires_grad_(False)
        if keeps_fp32_weights(self.recipe):
            for parameter in self.bare_model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()

    def final_weights(self) -> dict[str, torch.Tensor]:
        """Return all weights, whole, in the recipe's precision. Every process must call this: ZeRO-3 gathers them."""
        trainer = self.trainer
        weights: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if self.recipe.precision == "bf16" and self.recipe.tuning.leaves_model:
            weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
        return weights
