"""Does a profile belong to this checkpoint and this machine?"""

from pathlib import Path

import torch

from pipo_core.engine.torch_opening import prepare
from pipo_core.errors import UsageError
from pipo_core.machine import machine
from pipo_core.model.base_print import weights_print
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.profile import Checkpoint, Machine, Profile


def checkpoint_of(folder: Path) -> Checkpoint:
    """Return what a profile records of a checkpoint.

    Raises:
        CheckpointError: if files are missing or damaged.
    """
    return Checkpoint(folder=str(folder), weights=weights_print(folder))


def machine_of(settings: TorchSettings) -> Machine:
    """Return what a profile records of what runs the steps of an engine; sets the number of threads as they say.

    Raises:
        MachineError: if the device does not exist.
    """
    device, dtype = prepare(settings)
    precision = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        return Machine(device=torch.cuda.get_device_name(device), precision=precision, threads=None)
    return Machine(device=str(machine()["cpu"]), precision=precision, threads=torch.get_num_threads())


def check_profile(
    profile: Profile, name: Path, ckpt: Path, settings: TorchSettings, *, any_machine: bool = False
) -> None:
    """Check that a profile was made of this checkpoint, on such a machine.

    Args:
        profile: the profile.
        name: its file, for messages.
        ckpt: the checkpoint that is to be served.
        settings: of the engine that is to serve it.
        any_machine: whether it may be of another machine.

    Raises:
        UsageError: if not; says what differs.
    """
    if profile.checkpoint.weights != weights_print(ckpt):
        raise UsageError(
            f"{name} is of other weights ({profile.checkpoint.folder}) than those in {ckpt}",
            hint=f"pipo calibrate --ckpt {ckpt}",
        )
    here = machine_of(settings)
    differ = [
        f"{key} {theirs!r} and not {ours!r}"
        for key, ours in here.model_dump().items()
        if (theirs := getattr(profile.machine, key)) != ours
    ]
    if differ and not any_machine:
        raise UsageError(
            f"{name} was measured on another machine: {', '.join(differ)}",
            hint="pipo calibrate measures this one; --any-machine takes the profile as it is",
        )
