"""Checks, before the first step, that all processes train together and that the checkpoint was restored whole."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn

from pipo_core.errors import CheckpointError, MachineError
from pipo_core.train.checkpoints import step_of

_WEIGHT_FILES = ("adapter_model.safetensors", "model.safetensors")


def refuse_lone_processes(world_size: int) -> None:
    """Raise unless all processes that were started train together.

    Each for itself, they would silently train different weights.

    Args:
        world_size: how many the Trainer knows of.

    Raises:
        MachineError: saying how many there are.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != started:
        raise MachineError(f"{started} processes were started, but {world_size} train together")


def refuse_different_starts(resume_from: str | None) -> None:
    """Raise in every process unless all go on from the same step; otherwise they would wait for one another for ever.

    Args:
        resume_from: this process's checkpoint, None to start from the beginning.

    Raises:
        CheckpointError: naming the steps.
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


def refuse_unrestored(model: nn.Module, checkpoint: str | None) -> None:
    """Raise unless the model holds the checkpoint's weights: the Trainer restores what fits and skips the rest.

    Weights that DeepSpeed has split over processes are not checked.

    Args:
        model: with adapters, if there are any.
        checkpoint: its folder, None if nothing was to be restored.

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
                    raise CheckpointError(f"{file}: the model that trains has no weight {key}")
                tensor = saved.get_tensor(key)
                mine = own[key]
                if mine.numel() and not torch.equal(tensor.to(mine), mine):
                    raise CheckpointError(f"{file}: {key} was not restored")


def _named_weights(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """Return the weights that a checkpoint holds, by their names there."""
    if isinstance(model, PeftModel):
        adapter: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
        return adapter
    return model.state_dict()
