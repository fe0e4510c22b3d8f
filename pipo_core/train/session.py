"""One training in this process: ms-swift's pipeline with our rows, model and chat format.

`PairSession` is what every training does, `PairSft` supervised fine-tuning; distillation is `opd.PairDistillation`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from swift import SftArguments
from swift.pipelines.train.sft import SwiftSft
from torch import nn

from pipo_core.errors import CheckpointError, MachineError, MissingInputError
from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO
from pipo_core.recipes.opd import AnyTraining
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.train.arguments import frozen_modules, master_weights
from pipo_core.train.callbacks import StopRequest, TokenRate, TrainingEvents
from pipo_core.train.checkpoints import step_of
from pipo_core.train.events import EventWriter
from pipo_core.train.finite import NumberCheck
from pipo_core.train.gate_metric import GateMetric
from pipo_core.train.rows import EncodedRows, encode_rows, rows_folder
from pipo_core.train.template import CALIBRATION, LessonPlan, Position

_WEIGHT_FILES = ("adapter_model.safetensors", "model.safetensors")


class PairSession(SwiftSft):
    """ms-swift's supervised fine-tuning; what differs is where rows, model and chat format come from."""

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
        self._recipe = recipe
        self._made_by = made_by
        self._events = events
        self._stop = stop
        self._training_events: TrainingEvents | None = None
        self._numbers = NumberCheck(recipe.data.train)
        self.trainer: Any = None
        super().__init__(arguments)

    @property
    def stopped(self) -> bool:
        """Whether the training ended early because it was asked to."""
        return self._training_events is not None and self._training_events.stopped

    @property
    def bare_model(self) -> Qwen3_5ForCausalPIPO:
        """The pair model itself, without adapters' and processes' wrappers."""
        model: Qwen3_5ForCausalPIPO = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return model

    @classmethod
    def prepare_model(cls, args: SftArguments, model: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the model with its adapters, or with everything in training."""
        # PEFT's wrapper for causal language models adds arguments (masks, caches) that the pair model does not take;
        # this task type gets the generic wrapper, and means nothing else here.
        kwargs["task_type"] = "embedding"
        prepared: nn.Module = super().prepare_model(args, model, **kwargs)
        return prepared

    def train(self, trainer: Any) -> dict[str, Any]:
        """Train, or only restore the weights if the checkpoint to go on from is the last one."""
        self.trainer = trainer
        _refuse_lone_processes(trainer.args.world_size)
        if len(trainer.train_dataset) < trainer.args.world_size:
            raise MissingInputError(
                f"{self._recipe.data.train}: {len(trainer.train_dataset)} rows are too few for "
                f"{trainer.args.world_size} processes"
            )
        self._settle_weights()
        trainer.custom_metrics["train"]["tokens_per_second"] = TokenRate(trainer.args.device)
        if self._recipe.objective == "pipo":
            trainer.custom_metrics["train"][CALIBRATION] = GateMetric(trainer.args.device)
        self._prepare_trainer(trainer)
        # The Trainer would count every parameter at every pass for a figure that nobody reads.
        trainer.floating_point_ops = lambda inputs: 0
        resume_from = trainer.args.resume_from_checkpoint
        _refuse_different_starts(resume_from)
        self._training_events = TrainingEvents(
            self._events,
            self._stop,
            made_by=self._made_by,
            rows=len(trainer.train_dataset),
            dropped=trainer.train_dataset.dropped,
            before_first_step=lambda: self._begin(trainer, resume_from),
        )
        trainer.add_callback(self._numbers)
        trainer.add_callback(self._training_events)
        if resume_from is not None:
            step, steps = step_of(Path(resume_from))
            if step >= steps:
                trainer._load_from_checkpoint(resume_from)
                _refuse_unrestored(trainer.model, resume_from)
                trainer.state.global_step = trainer.state.max_steps = step
                return {}
        result: dict[str, Any] = super().train(trainer)
        return result

    @staticmethod
    def _begin(trainer: Any, resume_from: str | None) -> None:
        """Look at the weights for the last time, and let the first row's clocks start."""
        _refuse_unrestored(trainer.model, resume_from)
        for metric in trainer.custom_metrics["train"].values():
            metric.reset()

    def _prepare_trainer(self, trainer: Any) -> None:
        """Add to the trainer what this kind of training needs beside its template."""

    def _settle_weights(self) -> None:
        """Freeze what the objective does not run, and keep what trains in fp32 where nobody else does."""
        for module in frozen_modules(self._recipe):
            self.bare_model.get_submodule(module).requires_grad_(False)
        if master_weights(self._recipe):
            for parameter in self.bare_model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()

    def final_weights(self) -> dict[str, torch.Tensor]:
        """Return all weights, whole, in the recipe's precision. Every process must call this: ZeRO-3 gathers them."""
        trainer = self.trainer
        weights: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if self._recipe.precision == "bf16" and self._recipe.tuning.method == "full":
            weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
        return weights


class PairSft(PairSession):
    """Supervised fine-tuning (paper, section 4.1)."""

    def __init__(self, arguments: SftArguments, recipe: TrainRecipe, *, cache: Path, **common: Any) -> None:
        """Load model and tokenizer.

        Args:
            arguments: ms-swift's.
            recipe: what they were made from.
            cache: where tokenized rows lie, for all runs.
            common: what every session is given.
        """
        self._lesson = recipe
        self._cache = cache
        super().__init__(arguments, recipe, **common)

    def _prepare_model_tokenizer(self, **kwargs: Any) -> None:
        compressor = self._lesson.compressor if self._lesson.objective == "pipo" else None
        random_seed = self._lesson.seed if self._lesson.start == "random" else None
        super()._prepare_model_tokenizer(compressor=compressor, random_seed=random_seed, **kwargs)

    def _prepare_template(self) -> None:
        super()._prepare_template()
        loss = self._lesson.loss
        self.template.plan = LessonPlan(
            objective=self._lesson.objective,
            phases=self._lesson.pad_augmentation,
            seed=self._lesson.seed,
            weights=LossWeights(mtp=loss.mtp, confidence=loss.confidence, chunk=loss.chunk),
            position=self._position,
            check=self._numbers.loss,
        )

    def _position(self) -> Position:
        """Return how far training is; exact because batches are collated when the step that takes them begins."""
        state = self.trainer.state
        return Position(state.global_step / state.max_steps, int(state.epoch or 0))

    def _prepare_dataset(self) -> tuple[EncodedRows, EncodedRows | None]:
        data = self._lesson.data
        train = self._encoded(Path(data.train), "train", data.limit)
        validation = self._encoded(Path(data.validation), "validation", None) if data.validation else None
        return train, validation

    def _encoded(self, file: Path, name: str, limit: int | None) -> EncodedRows:
        max_length = self._lesson.data.max_length
        folder = rows_folder(self._cache, file, Path(self._lesson.model), max_length=max_length, limit=limit)
        if self.args.local_rank in (-1, 0):  # one process of each node, for nodes may have disks of their own
            done = 0

            def count(number: int) -> None:
                nonlocal done
                done = number
                self._events.count("encode", name=name, done=number)

            encode_rows(file, folder, encode=self.template.encode, max_length=max_length, limit=limit, progress=count)
            if done:
                self._events.write("encode", name=name, done=done)
        _wait_for_all()
        return EncodedRows(folder, learn=name == "train")


def _wait_for_all() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _refuse_lone_processes(world_size: int) -> None:
    """Raise unless the processes that were started train together: each for itself, they would silently diverge."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != started:
        raise MachineError(f"{started} processes were started, but {world_size} train together")


def _refuse_different_starts(resume_from: str | None) -> None:
    """Raise unless all processes go on from the same step: else they would wait for one another for ever.

    Raises:
        CheckpointError: in every process.
    """
    if not torch.distributed.is_initialized():
        return
    steps: list[int] = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(steps, 0 if resume_from is None else step_of(Path(resume_from))[0])
    if len(set(steps)) > 1:
        found = ", ".join(map(str, sorted(set(steps))))
        raise CheckpointError(
            f"the processes would go on from different steps ({found}): each node looks into its own output folder",
            hint="copy checkpoints/ of node 0's train folder to the other nodes' ones, or give --restart on all",
        )


def _refuse_unrestored(model: nn.Module, checkpoint: str | None) -> None:
    """Raise unless the model holds the checkpoint's weights: the Trainer restores what fits and leaves out the rest.

    Weights that DeepSpeed has split over processes are left to DeepSpeed.

    Raises:
        CheckpointError: naming the first weight that differs.
    """
    if checkpoint is None:
        return
    own = _named_weights(model)
    for name in _WEIGHT_FILES:
        file = Path(checkpoint) / name
        if not file.is_file():
            continue
        with safe_open(file, framework="pt") as saved:
            for key in saved.keys():  # noqa: SIM118 - not a dictionary
                if key not in own:
                    raise CheckpointError(f"{file}: {key} is no weight of the model that trains")
                tensor = saved.get_tensor(key)
                mine = own[key]
                if mine.numel() and not torch.equal(tensor.to(mine), mine):
                    raise CheckpointError(f"{file}: {key} was not restored")


def _named_weights(model: nn.Module) -> Mapping[str, torch.Tensor]:
    if isinstance(model, PeftModel):
        from peft import get_peft_model_state_dict

        adapter: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
        return adapter
    return model.state_dict()
